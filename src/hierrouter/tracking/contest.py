"""Aliases of a registered router's versions, and what is written about why they stand there.

Everything is told in tags of the version, the last of them when all is done: a call that was cut
short is made good by the next one, and one that was finished is not made again.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from hierrouter.errors import HierRouterError, UnreachableError
from hierrouter.tracking.champion import (
    CHALLENGER,
    CHAMPION,
    Decision,
    first_champion,
    judge,
)
from hierrouter.tracking.resolve import fetch_router

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

    from hierrouter.tracking.record import Record

REASON, VERDICT, SETTLED = "hierrouter.reason", "hierrouter.verdict", "hierrouter.settled"
"""Tags of a version: why it did or did not become champion, as which it came out, and that this is
done."""
AGAINST, ATTEMPT = "hierrouter.judged_against", "hierrouter.attempt"
"""Tags of a version: the champion that it was compared with, and the number of this attempt."""
ATTEMPTS, ATTEMPTS_AGAINST = "hierrouter.attempts", "hierrouter.attempts_against"
"""Tags of the registered model: how many versions were compared with its champion, and which
champion that was."""


def settle(client: MlflowClient, version: ModelVersion, record: Record, new: bool) -> str:
    """Points the aliases: `challenger` to the newest version, `champion` as the rule says.

    A version is judged once. A choice that a person makes afterwards stands. What kept two apart
    may pass, so one that could not be compared is judged when it is registered again.

    Args:
        client: of the tracking store.
        version: the version.
        record: what it was registered with.
        new: whether it was made just now.

    Returns:
        Why it did or did not become champion; of one that was never judged, that it was not.
    """
    registered = client.get_registered_model(version.name)
    aliases = {name: int(value) for name, value in registered.aliases.items()}
    number = int(version.version)
    versions = client.search_model_versions(f"name = '{version.name}'")
    newest = number == max(int(other.version) for other in versions)
    if newest and aliases.get(CHALLENGER) != number:
        client.set_registered_model_alias(version.name, CHALLENGER, str(number))
    told, champion = dict(version.tags), aliases.get(CHAMPION)
    if champion is not None and SETTLED in told:
        return str(told.get(REASON, ""))
    if champion is not None and VERDICT in told:  # cut short: the rest of it is made good
        reason = str(told[REASON])
        replaces = told[VERDICT] == CHAMPION and told.get(AGAINST, "") == str(champion)
    elif champion is not None and (champion == number or not (new or newest or AGAINST in told)):
        return _unjudged(client, version, champion)
    else:
        met = _attempts(client, version, champion)
        decision = _decide(client, version, record, champion, met + 1)
        # Judging takes minutes, in which somebody else's version may have been judged, too.
        now = _champion(client, version.name)
        if now != champion or _attempts(client, version, now) != met:
            again = client.get_model_version(version.name, version.version)
            return settle(client, again, record, new)
        replaces, reason = decision.replaces, decision.reason
        if not (replaces or decision.attempt):
            client.set_model_version_tag(version.name, str(number), REASON, reason)
            client.update_model_version(version.name, str(number), description=reason)
            return reason
        if decision.attempt:
            _count(client, version, champion, met + 1)
        verdict = CHAMPION if replaces else CHALLENGER
        for key, value in ((REASON, reason), (VERDICT, verdict)):
            client.set_model_version_tag(version.name, str(number), key, value)
    if replaces:
        client.set_registered_model_alias(version.name, CHAMPION, str(number))
    client.update_model_version(version.name, str(number), description=reason)
    client.set_model_version_tag(version.name, str(number), SETTLED, "true")
    return reason


def _unjudged(client: MlflowClient, version: ModelVersion, champion: int) -> str:
    """What is said of a version from before there was a rule."""
    number = int(version.version)
    if champion == number:
        reason = f"version {number}: is champion by somebody's choice, or from before versions were"
        reason += " compared; it was not compared with another"
    else:
        reason = f"version {number}: was never compared with a champion, and a newer version is the"
        reason += f" challenger; version {champion} stays champion. To have it compared, delete"
        reason += " this version and register the router again"
    if version.tags.get(REASON) != reason:
        client.set_model_version_tag(version.name, str(number), REASON, reason)
    return reason


def _decide(
    client: MlflowClient,
    version: ModelVersion,
    record: Record,
    champion: int | None,
    attempt: int,
) -> Decision:
    against = "" if champion is None else str(champion)
    client.set_model_version_tag(version.name, version.version, AGAINST, against)
    if champion is None:
        return _named(version, first_champion(record.metrics))
    title = f"version {champion}"
    with tempfile.TemporaryDirectory(prefix="hierrouter-") as scratch:
        try:
            folder = fetch_router(f"models:/{version.name}/{champion}", Path(scratch, "router"))
        except UnreachableError:
            raise
        except HierRouterError as error:
            reason = (
                f"{title} stays champion, the two were not compared: {error}. If it is lost, set "
                f"the alias {CHAMPION} by hand"
            )
            return _named(version, Decision(False, reason))
        decision = judge(record.router, record.evaluation, record.tree, folder, title, attempt)
    return _named(version, decision)


def _champion(client: MlflowClient, name: str) -> int | None:
    """The number of the version that is champion now."""
    number = client.get_registered_model(name).aliases.get(CHAMPION)
    return None if number is None else int(number)


def _attempts(client: MlflowClient, version: ModelVersion, champion: int | None) -> int:
    """How many other versions a champion has met.

    Two that were judged at the same time may both have counted themselves as the first: each says
    so in its own tags. Versions that were deleted are in the registered model's count alone.
    """
    if champion is None:
        return 0
    tags = client.get_registered_model(version.name).tags
    counted = int(tags.get(ATTEMPTS, 0)) if tags.get(ATTEMPTS_AGAINST) == str(champion) else 0
    told = [
        int(other.version)
        for other in client.search_model_versions(f"name = '{version.name}'")
        if ATTEMPT in other.tags and other.tags.get(AGAINST) == str(champion)
    ]
    return max(counted, len({*told} - {int(version.version)}))


def _count(client: MlflowClient, version: ModelVersion, champion: int | None, attempt: int) -> None:
    """Writes down that a version was compared with the champion."""
    client.set_model_version_tag(version.name, version.version, ATTEMPT, str(attempt))
    for key, value in ((ATTEMPTS_AGAINST, champion), (ATTEMPTS, attempt)):
        client.set_registered_model_tag(version.name, key, str(value))


def _named(version: ModelVersion, decision: Decision) -> Decision:
    return Decision(
        decision.replaces, f"version {version.version}: {decision.reason}", decision.attempt
    )
