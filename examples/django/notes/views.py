import csv
import logging
import os
from collections.abc import Iterator

from django import forms
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_safe

log = logging.getLogger(__name__)


class NoteForm(forms.Form):
    text = forms.CharField(max_length=80)


@require_http_methods(["GET", "HEAD", "POST"])
def index(request: HttpRequest) -> HttpResponse:
    form = NoteForm(request.POST or None)
    if form.is_valid():
        request.session["notes"] = [*request.session.get("notes", []), form.cleaned_data["text"]]
        log.info("a note of %d characters", len(form.cleaned_data["text"]))
        return redirect("index")
    notes = request.session.get("notes", [])
    return render(request, "notes.html", {"form": form, "notes": notes}, status=400 if form.errors else 200)


@require_safe
def export(request: HttpRequest) -> StreamingHttpResponse:
    """Line by line: the whole file is never in memory."""
    writer = csv.writer(Line())
    notes = request.session.get("notes", [])

    def lines() -> Iterator[str]:
        yield writer.writerow(["number", "note"])
        for number, note in enumerate(notes, 1):
            yield writer.writerow([number, note])

    headers = {"Content-Disposition": 'attachment; filename="notes.csv"'}
    return StreamingHttpResponse(lines(), content_type="text/csv", headers=headers)


class Line:
    """What csv.writer writes is what it returns."""

    def write(self, text: str) -> str:
        return text


@require_safe
def process(request: HttpRequest) -> HttpResponse:
    """Which process answers: it changes with each rolling update."""
    return HttpResponse(f"{os.getpid()}\n", content_type="text/plain")


@require_safe
def broken(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("this page is broken on purpose")
