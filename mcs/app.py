"""create_app: the only place that knows everyone."""

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from mcs import api, cli, config
from mcs.extensions import db, migrate
from mcs.gateways import callbacks
from mcs.gateways.jobqueue import JobQueue
from mcs.gateways.mailserver import MailServerCheck
from mcs.models import configure_engine
from mcs.web import BLUEPRINTS, errors, frame, security


def create_app(settings: config.Settings | None = None) -> Flask:
    """The web application, from the environment or from given settings (tests)."""
    settings = settings or config.load()
    app = Flask(
        "mcs",
        template_folder=str(config.ROOT / "templates"),
        static_folder=str(config.ROOT / "static"),
        instance_path=str(settings.instance),
    )
    app.config.update(
        SETTINGS=settings,
        SECRET_KEY=settings.secret_key,
        SQLALCHEMY_DATABASE_URI=settings.database_url,
        SQLALCHEMY_ENGINE_OPTIONS={"pool_pre_ping": True},
    )
    if settings.trusted_proxies:
        hops = settings.trusted_proxies
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops)  # type: ignore[method-assign]
    db.init_app(app)
    migrate.init_app(app, db, directory=str(config.ROOT / "mcs" / "migrations"))
    app.extensions["jobqueue"] = JobQueue(settings.redis_url, settings.redis_tls_verify)
    app.extensions["callbacks"] = callbacks.table(settings.webhook_allow)
    app.extensions["mailserver"] = MailServerCheck(settings.mail_server, settings.mail_port)
    api.init_app(app)
    security.init_app(app, settings)
    frame.init_app(app)
    errors.init_app(app)
    for blueprint in BLUEPRINTS:
        app.register_blueprint(blueprint)
    cli.init_app(app)
    with app.app_context():
        configure_engine(db.engine)
    return app
