#!/usr/bin/env bash
# Packages (npm): @iconify-json/openmoji 1.2.29, @iconify-json/noto 1.2.9, @iconify-json/twemoji 1.2.5.
# Behaviour: icons of different names, none of them listed as an alias, have the very same drawing, also where the
#   names say what the drawing should show: openmoji's wrestlers have one drawing for all pairs of skin tones, its
#   artist is its man-artist, noto's astronaut is man and woman, twemoji's families are all one silhouette. The
#   packages list their true aliases apart, in `aliases`, so it looks as if all that is left were different.
# A good guess: one entry of `icons`, one drawing; what is drawn alike is an alias.
# Whom it hits: who makes captions of the names: they teach that "dark skin tone" or "woman" shows nothing. And who
#   holds out icons by name: the held-out drawing is in the training set under another name.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
for package in openmoji@1.2.29 noto@1.2.9 twemoji@1.2.5; do
    npm pack --silent "@iconify-json/$package" >/dev/null
done
python3 - <<'PYTHON'
import glob
import json
import tarfile

claims = {  # names that promise different drawings
    "openmoji": [
        (
            "people-wrestling-dark-skin-tone-light-skin-tone",
            "people-wrestling-light-skin-tone-dark-skin-tone",
        ),
        ("artist", "man-artist"),
    ],
    "noto": [("man-astronaut", "woman-astronaut")],
    "twemoji": [("family-man-woman-boy", "family-woman-woman-girl")],
}
seen = []
for path in sorted(glob.glob("iconify-json-*.tgz")):
    with tarfile.open(path) as archive:
        data, package = (
            json.load(archive.extractfile(f"package/{name}.json")) for name in ("icons", "package")
        )
    names_of = {}
    for name, icon in data["icons"].items():
        if not icon.get("hidden"):
            names_of.setdefault(icon["body"], []).append(name)
    shared = [names for names in names_of.values() if len(names) > 1]
    print(
        f"{package['name']} {package['version']}: {sum(map(len, names_of.values()))} icons that are "
        f"not hidden, {len(data['aliases'])} aliases; "
        f"{sum(map(len, shared))} icons share their drawing with another one, "
        f"in {len(shared)} groups, the largest of {max(map(len, shared))}"
    )
    for one, other in claims[data["prefix"]]:
        are_aliases = one in data["aliases"] or other in data["aliases"]
        is_equal = data["icons"][one]["body"] == data["icons"][other]["body"]
        print(
            f"    {one}, {other}: {'the same' if is_equal else 'another'} drawing, "
            f"{'listed' if are_aliases else 'not listed'} as aliases"
        )
        seen.append(is_equal and not are_aliases)
if len(seen) != 4 or not all(seen):
    raise SystemExit("the behaviour is another one now")
PYTHON
