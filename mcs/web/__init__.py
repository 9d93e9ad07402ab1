"""The pages: one blueprint per noun, all named here."""

from flask import Blueprint

from mcs.web import (
    activity,
    api_tokens,
    campaigns,
    contacts,
    deliveries,
    doubts,
    emailers,
    health,
    home,
    imports,
    mailbox,
    scenarios,
    sequences,
    sessions,
    steps,
    subjects,
    unsubscribe,
    users,
)

BLUEPRINTS: tuple[Blueprint, ...] = (
    activity.bp,
    api_tokens.bp,
    campaigns.bp,
    contacts.bp,
    deliveries.bp,
    doubts.bp,
    emailers.bp,
    health.bp,
    home.bp,
    imports.bp,
    mailbox.bp,
    scenarios.bp,
    sequences.bp,
    sessions.bp,
    steps.bp,
    subjects.bp,
    unsubscribe.bp,
    users.bp,
)
