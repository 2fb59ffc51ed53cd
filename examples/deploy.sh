#!/usr/bin/env bash
# A rolling update: node by node drain, swap the link that names the live version, rejoin. The other nodes carry the load.
set -uo pipefail

usage() {
    cat <<'USAGE'
usage: deploy.sh RUN_DIR NEW_VERSION NODE...

  RUN_DIR      holds a folder for each node, with a symlink `live` in it: RUN_DIR/NODE/live
  NEW_VERSION  folder of the new version: what each `live` is to name
  NODE...      names of the nodes, in the order in which they are updated

For each node: rota drain NODE --wait, swap its link, rota rejoin NODE --wait. The first step that fails ends the
deploy with that step's exit code; nodes that were not begun keep their version. It may be run again: what is done
already does no harm. While another deploy is at work in RUN_DIR it changes nothing and exits with 5.

environment:
  ROTA_MASTER  control address of the master (tcp://127.0.0.1:7700)
  ROTA         the command (rota)
  TIMEOUT      seconds that a step may take (120)
USAGE
}

wrong() { printf 'deploy.sh: %s\n' "$1" >&2; usage >&2; exit 2; }

# Seconds since $1, which is an earlier $EPOCHREALTIME (in some languages it has a comma).
since() { local us=$((10#${EPOCHREALTIME//[.,]/} - 10#${1//[.,]/})); printf '%d.%02d' $((us / 1000000)) $((us / 10000 % 100)); }

# step NAME COMMAND...: run it, report its time; on failure say where everything stands, and stop.
step() {
    local name=$1 begun=$EPOCHREALTIME status=0
    shift
    printf '%-12s %-7s' "$node" "$name"
    "$@" >"$output" 2>&1 &  # in the background: a signal is obeyed at once, not when the command has ended
    child=$!
    wait "$child" || status=$?
    if ((status == 0)); then
        printf '%7s s\n' "$(since "$begun")"
        return
    fi
    printf '%7s s  FAILED (exit %d)\n' "$(since "$begun")" "$status"
    sed 's/^/    /' "$output" >&2
    stopped "$name failed" "$status"
}

stopped() {
    local left=("${nodes[@]:${#updated[@]}+1}")
    kill "$child" 2>/dev/null
    printf 'deploy.sh: %s: %s; stopped. Updated: %s. Not begun: %s.\n' \
        "$node" "$1" "${updated[*]:-none}" "${left[*]:-none}" >&2
    printf 'deploy.sh: %s is as `rota status` shows it, its link names %s\n' "$node" "$(readlink "$run/$node/live")" >&2
    exit "$2"
}

# A rename replaces the link in one step: whoever looks finds the old version or the new one, never none.
# Where each node is on a machine of its own, do this there, by ssh.
swap() {
    local link=$run/$node/live
    ln -sfn "$version" "$link.new" && mv -fT "$link.new" "$link"
}

case ${1-} in -h | --help) usage; exit 0 ;; esac
(($# >= 3)) || wrong 'RUN_DIR, NEW_VERSION and at least one NODE are needed'
run=$1 version=$(realpath -e -- "$2" 2>/dev/null) || wrong "no such folder: $2"
shift 2
nodes=("$@") updated=() child=
for node in "${nodes[@]}"; do
    [[ -L $run/$node/live ]] || wrong "$run/$node/live is not a symlink"
done

# Two at once would swap links below each other's nodes, and each would say that all is well. The lock ends with us.
exec 9<"$run" && flock -n 9 || { echo "deploy.sh: another deploy is at work in $run: wait for its end" >&2; exit 5; }

rota=${ROTA:-rota} timeout=${TIMEOUT:-120} begun=$EPOCHREALTIME
reason="deploy $(basename "$version")"
output=$(mktemp) || exit 1
trap 'rm -f "$output"' EXIT
trap 'echo; stopped interrupted 130' INT
trap 'echo; stopped terminated 143' TERM

for node in "${nodes[@]}"; do
    step drain "$rota" drain "$node" --wait --timeout "$timeout" --reason "$reason"
    step swap swap
    step rejoin "$rota" rejoin "$node" --wait --timeout "$timeout" --reason "$reason"
    updated+=("$node")
done
printf '%s: on %s in %s s\n' "${updated[*]}" "$(basename "$version")" "$(since "$begun")"
