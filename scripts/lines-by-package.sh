#!/usr/bin/env bash
# Lines of Python by package of src/cogview, at any commits: scripts/lines-by-package.sh 51ab4df HEAD
set -euo pipefail
cd "$(dirname "$0")/.."
for commit in "$@"; do
  git archive "$commit" src/cogview | tar --extract --to-command='case "$TAR_REALNAME" in
    *.py) package=${TAR_REALNAME#src/cogview/}
      case "$package" in */*) package=${package%%/*} ;; *) package="(itself)" ;; esac
      echo "$package $(wc -l)" ;;
    *) cat >/dev/null ;; esac' |
    awk -v commit="$commit" '{ lines[$1] += $2; total += $2 }
      END { for (package in lines) print commit, package, lines[package]; print commit, "total", total }' |
    sort --key=2
done
