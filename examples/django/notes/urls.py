from django.urls import path

from . import views

urlpatterns = [
    path("", views.index, name="index"),
    path("notes.csv", views.export, name="export"),
    path("process", views.process, name="process"),
    path("broken", views.broken, name="broken"),
]
