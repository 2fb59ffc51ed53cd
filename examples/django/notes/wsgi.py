import os

from django.core.wsgi import get_wsgi_application
from django.urls import get_resolver

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "notes.settings")

application = get_wsgi_application()

# Django loads views with the first request. Loaded now, one that is broken keeps a process from being ready, and a
# rolling update stops at the first process instead of at the first visitor.
_ = get_resolver().url_patterns
