"""The pages: one blueprint per noun, all named here."""

from flask import Blueprint

BLUEPRINTS: tuple[Blueprint, ...] = ()
