"""The pages: one blueprint per noun, all named here."""

from flask import Blueprint

from mcs.web import activity, campaigns, health, home, sessions, users

BLUEPRINTS: tuple[Blueprint, ...] = (
    activity.bp,
    campaigns.bp,
    health.bp,
    home.bp,
    sessions.bp,
    users.bp,
)
