"""How gunicorn serves MCS: ``gunicorn wsgi:app`` reads this by itself."""

from pathlib import Path

from mcs.config import BadSetting, load

try:
    _settings = load()
except BadSetting as error:
    raise SystemExit(str(error)) from None

bind = f"127.0.0.1:{_settings.port}"  # The Procfile opens it to its host's router.
worker_class = "gthread"
threads = 8
# A host's router gives a request up at 30 s, and says SIGKILL 30 s after SIGTERM.
timeout = 60
graceful_timeout = 25
keepalive = 5
# A worker's sign of life must not wait for a slow disk.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None
forwarded_allow_ips = "*" if _settings.trusted_proxies else "127.0.0.1,::1"
control_socket_disable = True
accesslog = None
loglevel = "warning"
