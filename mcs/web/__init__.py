"""The pages: one blueprint per noun, all named here."""

from flask import Blueprint

from mcs.web import activity, sessions, users

BLUEPRINTS: tuple[Blueprint, ...] = (
    activity.bp,
    sessions.bp,
    users.bp,
)
