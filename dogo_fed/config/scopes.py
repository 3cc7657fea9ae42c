"""The scopes of settings, by short names; `dogo_fed.scope` says what a scope is."""

from __future__ import annotations

from dogo_fed.scope import DecidedBy, Decides, scope

OWN = scope(DecidedBy.SITE, Decides.TRAINING)
OWN_TEACHING = scope(DecidedBy.SITE, Decides.TRAINING, teaching=True)
AGREED = scope(DecidedBy.RUN, Decides.TRAINING, agreed=True)
AGREED_TEACHING = scope(DecidedBy.RUN, Decides.TRAINING, agreed=True, teaching=True)
CONVERSATION = scope(DecidedBy.RUN, Decides.NOTHING, teaching=True)
AGREED_CONVERSATION = scope(DecidedBy.RUN, Decides.NOTHING, agreed=True, teaching=True)
ROUNDING = scope(DecidedBy.SITE, Decides.ROUNDING)
LENGTH = scope(DecidedBy.RUN, Decides.LENGTH, agreed=True)
SCORES = scope(DecidedBy.RUN, Decides.SCORES)
SAFETY = scope(DecidedBy.RUN, Decides.NOTHING)
PLACE = scope(DecidedBy.PLACE, Decides.NOTHING)
