"""What --json prints, in the words of the API where it has any."""

from collections.abc import Mapping
from datetime import datetime

from app.domain.aggregate import Presence, shown_at
from app.domain.explain import Explanation
from app.domain.values import PastEvent, Session
from app.services.inspection import Stats, StoredSession

Object = Mapping[str, object]


def explanation_object(said: Explanation) -> Object:
    """Return an explanation: what everybody sees and, in `ahead`, will see, each session, and what happened lately."""
    preferred = said.state.preferred
    return {
        "now": said.now,
        **_presence(said.presence),
        "rule": said.rule,
        "preference": said.preference,
        "preferred": preferred and {**preferred.shown._asdict(), "expiresAt": preferred.expires_at},
        "sessions": [
            {
                **_session(each.session),
                "live": each.live,
                "shows": each.shows._asdict(),
                "wins": each.wins,
                "ahead": [{"at": turn.at, **turn.shows._asdict()} for turn in each.ahead],
            }
            for each in said.sessions
        ],
        "ahead": [{"at": change.at, **_presence(change.presence)} for change in said.ahead],
        "history": [event_object(event) for event in said.history],
    }


def session_object(stored: StoredSession, now: datetime) -> Object:
    """Return a live session, whose it is, and what it shows now."""
    shows = shown_at(stored.session, now)._asdict()
    return {"tenant": stored.tenant_id, "user": stored.user_id, **_session(stored.session), "shows": shows}


def event_object(event: PastEvent) -> Object:
    """Return an event of the history."""
    return {
        "id": event.id,
        "at": event.at,
        "kind": event.kind,
        "app": event.session_id,
        "availability": event.shown and event.shown.availability,
        "activity": event.shown and event.shown.activity,
        "expiresAt": event.expires_at,
        "requestId": event.request_id,
        "actor": event.actor,
    }


def stats_object(found: Stats) -> Object:
    """Return the figures; `estimatedFrom` is null when they are exact."""
    return {
        "now": found.now,
        "liveSessions": found.live_sessions,
        "usersByAvailability": found.users,
        "sessionsByApp": found.sessions,
        "estimatedFrom": found.looked_at,
        "eventsPerMinute": round(found.events_per_minute, 1),
        "minutes": [minute._asdict() for minute in found.minutes],
    }


def _session(session: Session) -> Object:
    return {
        "app": session.session_id,
        "setTo": session.shown._asdict(),
        "changedAt": session.changed_at,
        "setAt": session.set_at,
        "expiresAt": session.expires_at,
    }


def _presence(seen: Presence) -> Object:
    return {
        **seen.shown._asdict(),
        "statusMessage": seen.message and seen.message.content,
        "workLocation": seen.location and seen.location.type,
        "workLocationSource": seen.location_source,
    }
