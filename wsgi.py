"""The WSGI entry: ``gunicorn wsgi:app``, ``flask --app wsgi mcs --help``."""

from mcs.app import create_app

app = create_app()
