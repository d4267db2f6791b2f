#!/bin/sh
# Inside the guest: the package's unit is running. Says each thing that holds as "ok WHAT"; the first that does not
# ends it. The last line of a good run is "@check done".
set -u

fail() {
  echo "@check failed: $*"
  journalctl --unit socklife.service --no-pager --output short-monotonic | tail -n 40
  exit 1
}

# holds WHAT COMMAND...: what the command prints is shown if it fails.
holds() {
  what=$1
  shift
  if said=$("$@" 2>&1); then echo "ok $what"; else fail "$what: \`$*\` said: $said"; fi
}

# refused WHAT COMMAND...: exit code 3, and one sentence.
refused() {
  what=$1
  shift
  said=$("$@" 2>&1 >/dev/null)
  code=$?
  [ "$code" = 3 ] || fail "$what: \`$*\` ended with $code, not 3, and said: $said"
  [ "$(echo "$said" | wc -l)" = 1 ] || fail "$what: more than one sentence: $said"
  echo "ok $what"
}

holds "the unit is active" systemctl is-active socklife.service
holds "it watches by kernel events" sh -c 'socklife snapshot | grep -q "\"mode\": *\"ebpf\""'
holds "nothing is missing" sh -c '! socklife snapshot | grep -q "\"state\": *\"missing\""'
holds "the socket is its group's" sh -c '[ "$(stat -c %a:%U:%G /run/socklife/socklife.sock)" = 660:root:socklife ]'
holds "nothing that it keeps is for others to read" sh -c '[ -z "$(find /var/lib/socklife -perm /027)" ]'
holds "others may not read its configuration" sh -c '[ "$(stat -c %a /etc/socklife/socklife.toml)" = 640 ]'

holds "it has given up what it needs no more" sh -c '[ "$(grep -h CapPrm /proc/$(systemctl show --value --property MainPID socklife.service)/task/*/status | sort -u | cut -f 2)" = 0000008000081004 ]'
holds "it has its helper" sh -c '[ "$(grep -h CapPrm /proc/$(cat /proc/$(systemctl show --value --property MainPID socklife.service)/task/*/children | tr -d " ")/status | cut -f 2)" = 0000000000201000 ]'

refused "a stranger is refused" setpriv --reuid nobody --regid nogroup --clear-groups socklife snapshot
usermod --append --groups socklife nobody
holds "a member of the group is not" setpriv --reuid nobody --regid nogroup --init-groups sh -c 'socklife snapshot >/dev/null'

# A leak: the unit names who it is.
sleep infinity | /check/demo-database --until-stdin-ends --listen 127.0.0.1:5432 --limit 200 >/run/database.log &
until grep -q listening /run/database.log; do :; done
sleep infinity | /check/leaky-client --until-stdin-ends --every 2s --address 127.0.0.1:5432 >/run/client.log &
holds "a leak is named" sh -c 'socklife tail --json | grep -m 1 leaky-client'

holds "what happened is kept" sh -c 'socklife history --since 1h | grep -q leaky-client'

holds "it can be reloaded" systemctl reload socklife.service
holds "it can be restarted" systemctl restart socklife.service
holds "it is watched by the watchdog" sh -c '[ "$(systemctl show --value --property WatchdogUSec socklife.service)" = 30s ]'
holds "it said nothing worth a warning" sh -c '! journalctl --unit socklife.service --no-pager | grep -E " (WARN|ERROR) "'
holds "the manual names its pages" sh -c 'zcat /usr/share/man/man1/socklife.1.gz | grep -qF "socklife\-snapshot"'
holds "completions are bash's" sh -c 'grep -q "complete -F _socklife" /usr/share/bash-completion/completions/socklife'
holds "no file differs from the package's" dpkg --verify socklife
holds "it ends cleanly" systemctl stop socklife.service
holds "and leaves no socket" test ! -e /run/socklife/socklife.sock
[ "$(systemctl show --value --property Result socklife.service)" = success ] || fail "the unit's result is not success"
holds "it starts again" systemctl start socklife.service
holds "it can be removed" dpkg --purge socklife
holds "nothing of it runs" sh -c '! systemctl is-active socklife.service'
holds "nothing of it is left" sh -c '! ls -d /usr/bin/socklife /etc/socklife /var/lib/socklife /run/socklife 2>/dev/null'
echo "@check done"
