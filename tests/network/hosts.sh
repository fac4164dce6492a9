#!/bin/bash
# Hosts on one machine: network namespaces NAME1, NAME2, ... joined by a switch, each link shaped to a bandwidth both ways, each
# with a host name of its own, so that MPI sees nodes and uses TCP between them. As root.
#   hosts.sh up NAME COUNT RATE        RATE as tc has it: 10gbit, 1gbit, 100mbit
#   hosts.sh rate NAME COUNT RATE      another bandwidth
#   hosts.sh run NAME COUNT [mpirun's options] -- COMMAND...      one rank a host unless -n says otherwise
#   hosts.sh down NAME COUNT
# SPDX-License-Identifier: BSD-3-Clause
set -eu
usage() {
    sed -n '4,7s/^# *//p' "$0" >&2
    exit 2
}
[ $# -ge 3 ] || usage
verb=$1 name=$2 count=$3
shift 3
[ "$(id -u)" -eq 0 ] || {
    echo "hosts.sh: error: must run as root (network namespaces)" >&2
    exit 1
}

# A burst of 2 ms of the rate, but of no less than a large segment.
shape() { # namespace, device, rate
    local bits=${3%bit} burst
    case $bits in
    *g) bits=$((${bits%g} * 1000000000)) ;;
    *m) bits=$((${bits%m} * 1000000)) ;;
    *k) bits=$((${bits%k} * 1000)) ;;
    esac
    burst=$((bits / 8 / 500))
    [ "$burst" -ge 131072 ] || burst=131072
    ${1:+ip netns exec "$1"} tc qdisc replace dev "$2" root tbf rate "$3" burst "$burst" latency 100ms
}
rate() {
    local i
    for i in $(seq "$count"); do
        shape "$name$i" uplink "$1"
        shape "" "$name-$i" "$1"
    done
}
down() {
    local i
    for i in $(seq "$count"); do
        ip netns del "$name$i" 2>/dev/null || true
        ip link del "$name-$i" 2>/dev/null || true
    done
    ip link del "$name-sw" 2>/dev/null || true
}

case $verb in
up)
    trap 'down' ERR
    ip link add "$name-sw" type bridge
    ip link set "$name-sw" up
    for i in $(seq "$count"); do
        ip netns add "$name$i"
        ip link add "$name-$i" type veth peer name uplink netns "$name$i"
        ip link set "$name-$i" master "$name-sw" up
        ip -n "$name$i" addr add "10.77.0.$i/24" dev uplink
        ip -n "$name$i" link set uplink up
        ip -n "$name$i" link set lo up
    done
    rate "$1"
    ;;
rate) rate "$1" ;;
down) down ;;
run)
    options=()
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        options+=("$1")
        shift
    done
    [ $# -gt 1 ] || usage
    shift
    list=$(seq -f "10.77.0.%g:8" -s , "$count")
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    # mpirun's remote shell: the host's address, then a command line.
    cat >"$folder/agent" <<AGENT
#!/bin/bash
host=\$1
shift
exec ip netns exec $name\${host##*.} unshare --uts sh -c "hostname $name\${host##*.}; \$*"
AGENT
    chmod +x "$folder/agent"
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    ip netns exec "${name}1" unshare --uts sh -c 'hostname "$0"; exec "$@"' "${name}1" \
        mpirun --host "$list" --map-by node -n "$count" --mca plm_rsh_agent "$folder/agent" --mca pml ob1 \
        --mca btl self,vader,tcp --mca btl_tcp_if_include uplink --mca oob_tcp_if_include uplink \
        --mca btl_vader_single_copy_mechanism none --bind-to none "${options[@]}" "$@"
    ;;
*) usage ;;
esac
