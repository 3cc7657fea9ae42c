"""`dogo-fed anchors`: makes the manifest of an anchor set, or checks a copy of the images by one."""

from __future__ import annotations

from collections.abc import Sequence

from configs.compose import compose_run
from configs.shorthand import in_full
from dogo_fed.data.held_out import dataset_with_test_part
from dogo_fed.data.manifest import Manifest
from dogo_fed.errors import ConfigError, DataError
from dogo_fed.typed_path import typed_path
from server.commands.key_values import run_command

_OUT = "anchors.json"
_HELP = f"""usage: dogo-fed anchors make data=... [licence='...'] [out={_OUT}] [key=value ...]
       dogo-fed anchors check data=... [manifest={_OUT}] [key=value ...]

make writes the manifest of the images that a run with the same settings would share: number, size,
fingerprint, a digest of each image, and a note on the licence. check says whether the images here are
those of a manifest. A coordinator without images takes the manifest by anchors=FILE.

Further arguments are settings of the data set, as for `dogo-fed train`.
"""


def main() -> None:
    """Runs what the command line says; leaves the process with a status that tells how it ended."""
    run_command(_HELP, lambda arguments: [_run(arguments[0], arguments[1:])])


def _run(action: str, arguments: Sequence[str]) -> str:
    """Returns what was done, a sentence.

    Raises:
        ConfigError: the action or a setting is unknown.
        DataError: the images are missing or broken, or are not those of the manifest.
    """
    words = {"make": ("licence", "out"), "check": ("manifest",)}
    if action not in words:
        raise ConfigError(f"`dogo-fed anchors {action}`: the actions are make and check")
    own = {key: value for key, _, value in (argument.partition("=") for argument in arguments)}
    settings = [
        argument for argument in arguments if argument.partition("=")[0] not in words[action]
    ]
    config = compose_run(in_full(settings))
    if action == "make":
        path = typed_path(own.get("out", _OUT))
        made = Manifest.of(
            dataset_with_test_part(config.data, config.eval.test_share), own.get("licence", "")
        )
        made.write(path)
        return f"{path}: {made.num_images} anchors of {made.image_size} px, {made.fingerprint}"
    path = typed_path(own.get("manifest", _OUT))
    manifest = Manifest.read(path)
    found = manifest.differences(dataset_with_test_part(config.data, config.eval.test_share))
    if found:
        raise DataError(f"the images are not those of {path}: {'; '.join(found)}")
    return f"the {manifest.num_images} images are those of {path}"
