"""The WSGI entry: ``gunicorn wsgi:app``, ``flask --app wsgi mcs --help``."""

from mcs.app import create_app
from mcs.config import BadSetting

try:
    app = create_app()
except BadSetting as error:
    raise SystemExit(str(error)) from None
