#!/usr/bin/env bash
# The bed: two networks with the same addresses, a wire between them on which one port passes, and a real Kafka cluster in each.
# Used by bin/demo, bin/bench and the tests; see `bed.sh help`.
#
# With LINKSPAN_BED_LOOPBACK=1 there are no networks and no wire, only two ranges of loopback addresses: nothing needs a privilege,
# and nothing about overlapping addresses or closed ports is shown.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
BED=${LINKSPAN_BED:-$root/target/bed}
CACHE=${LINKSPAN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/linkspan}
KAFKA_VERSION=4.1.0
LIBS=$CACHE/kafka-$KAFKA_VERSION/libs

# A bed stays what it was made as, whoever asks later.
if [ -e "$BED/loopback" ]; then LINKSPAN_BED_LOOPBACK=1; elif [ -d "$BED/orange" ]; then LINKSPAN_BED_LOOPBACK=; fi
loopback() { [ -n "${LINKSPAN_BED_LOOPBACK:-}" ]; }

# In every network brokers are .11 to .13 (a fourth has .14), the endpoint and clients .2. Where each endpoint is seen by the other,
# and what it opens, depends on whether it has its host for itself.
if loopback; then
  ORANGE_NET=127.10.0
  GRAPE_NET=127.20.0
  ORANGE_WAN=$ORANGE_NET.2
  GRAPE_WAN=$GRAPE_NET.2
  TUNNEL_LISTEN=$ORANGE_WAN
  GRAPE_DNS=$GRAPE_WAN:5353
  ORANGE_ADMIN=$ORANGE_WAN:9464
  GRAPE_ADMIN=$GRAPE_WAN:9464
else
  ORANGE_NET=10.77.0
  GRAPE_NET=10.77.0
  ORANGE_WAN=203.0.113.7
  GRAPE_WAN=198.51.100.9
  TUNNEL_LISTEN=0.0.0.0
  GRAPE_DNS=127.0.0.1:53
  ORANGE_ADMIN=127.0.0.1:9464
  GRAPE_ADMIN=127.0.0.1:9464
fi
# The clusters' client ports differ so that a counter can tell whose brokers were dialled.
ORANGE_PORT=9092
GRAPE_PORT=9094

die() { printf 'bed: %s\n' "$*" >&2; exit 1; }
say() { printf 'bed: %s\n' "$*" >&2; }

usage() {
  cat <<'EOF'
bed.sh — two networks, one wire, two real Kafka clusters

  jars                       fetch Apache Kafka's jars by Maven, once
  python                     make a Python environment with librdkafka's client, once
  up [PORT]                  make both networks and the wire; only tcp PORT (default 7443) passes, towards orange
  start orange|grape [ID…]   start the brokers (0 1 2) and wait until they answer
  stop orange|grape [ID…]    stop brokers in order;  kill … = SIGKILL
  exec orange|grape -- CMD   run CMD inside a network
  tool orange|grape CLASS …  run one of Kafka's tools there (no client config is added)
  config orange|grape        print the path of the client properties of that cluster, seen from its own network
  env                        print addresses and paths as shell assignments
  learn grape HOST:PORT      ask that DNS server for orange's brokers, for the clients in grape; only loopback beds need it
  counters                   what the wire let through and dropped, and broker addresses of orange dialled inside grape
  down                       end everything that was started here and remove both networks

BED_AUTHORIZER=1 at the first start of a cluster: it has an authorizer, and so ACLs.
LINKSPAN_BED is the bed's directory. LINKSPAN_BED_LOOPBACK=1: two ranges of loopback addresses instead of networks, without root.
EOF
}

cluster_port() { case $1 in orange) echo $ORANGE_PORT ;; grape) echo $GRAPE_PORT ;; *) die "no cluster $1: orange or grape" ;; esac; }
net() { case $1 in orange) echo $ORANGE_NET ;; grape) echo $GRAPE_NET ;; *) die "no network $1: orange or grape" ;; esac; }
ns_pid() { cat "$BED/$1/ns.pid" 2>/dev/null || die "network $1 is not up: bed.sh up"; }

# Sets INSIDE to the words that run a command in a network.
inside() { # NETWORK
  if loopback; then
    [ -d "$BED/$1/etc" ] || die "network $1 is not up: bed.sh up"
    INSIDE=(env)
  else
    local pid; pid=$(ns_pid "$1")
    INSIDE=(nsenter -t "$pid" -n -m --wdns="$PWD" --)
  fi
}
in_ns() { inside "$1"; shift; "${INSIDE[@]}" "$@"; }

# A process is known by its id and the time it began: the id alone may be another process's tomorrow.
begun() { # PID
  local stat fields
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  read -ra fields <<<"${stat##*) }"
  [ "${fields[0]}" != Z ] && echo "${fields[19]}"
}
running() { # PIDFILE: prints the id while that very process lives
  local pid began
  read -r pid began 2>/dev/null <"$1" || return 1
  [ "$(begun "$pid")" = "$began" ] && echo "$pid"
}

need() {
  local missing=()
  for tool in "$@"; do command -v "$tool" >/dev/null 2>&1 || missing+=("$tool"); done
  [ ${#missing[@]} -eq 0 ] && return
  die "missing: ${missing[*]}. On Debian or Ubuntu: apt-get install openjdk-17-jdk-headless maven nftables iproute2 util-linux openssl"
}

jars() {
  [ -e "$LIBS/.complete" ] && return
  need java mvn
  say "fetching Apache Kafka $KAFKA_VERSION from Maven Central into $LIBS (once, about 110 MB)"
  mkdir -p "$LIBS"
  mvn -q -B -f "$here/pom.xml" org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
    -DoutputDirectory="$LIBS" -DincludeScope=runtime >&2
  touch "$LIBS/.complete"
}

python() {
  local venv=$CACHE/venv
  if [ -x "$venv/bin/python" ] && "$venv/bin/python" -c 'import confluent_kafka' 2>/dev/null; then return; fi
  say "installing confluent-kafka (librdkafka) by pip into $venv, once"
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check confluent-kafka==2.12.0
}

# Sets JAVA to the command line of a JVM in a network, up to the class.
jvm() { # NETWORK HEAP
  JAVA=(java "-Xmx$2" -XX:+UseSerialGC -Xshare:auto "-Dlog4j2.configurationFile=$BED/log4j2.properties")
  if [ -z "${BED_C2:-}" ]; then JAVA+=(-XX:TieredStopAtLevel=1); fi
  if loopback; then JAVA+=("-Djdk.net.hosts.file=$BED/$1/etc/hosts"); fi
  JAVA+=(-cp "$LIBS/*")
}

run_java() { # NETWORK HEAP CLASS ARGS…
  local name=$1 heap=$2 class=$3; shift 3
  jvm "$name" "$heap"
  in_ns "$name" "${JAVA[@]}" "$class" "$@"
}

write_hosts() { # NETWORK
  local name=$1 id
  { echo "127.0.0.1 localhost $(uname -n)"
    for id in 0 1 2 3; do echo "$(net "$name").1$((id + 1)) b$id.$name.test"; done
  } >"$BED/$name/etc/hosts"
}

up() {
  local port=${1:-7443}
  need openssl
  loopback || need ip nft nsenter unshare
  [ ! -d "$BED/orange" ] || die "already up in $BED: bed.sh down first"
  mkdir -p "$BED"
  cat >"$BED/log4j2.properties" <<'EOF'
rootLogger.level = warn
rootLogger.appenderRefs = out
rootLogger.appenderRef.out.ref = OUT
# A client's lost connections are told at this level.
logger.net.name = org.apache.kafka.clients.NetworkClient
logger.net.level = info
appender.out.type = Console
appender.out.name = OUT
appender.out.target = SYSTEM_ERR
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d %p %m (%c)%n
EOF
  local name
  for name in orange grape; do
    mkdir -p "$BED/$name/etc"
    write_hosts "$name"
  done
  if loopback; then up_loopback "$port"; else up_networks "$port"; fi
  tls
}

# All of 127.0.0.0/8 is local, so there is nothing to make; but others may be using it.
up_loopback() { # PORT
  local used
  touch "$BED/loopback"
  mkdir -p "$BED/orange/started" "$BED/grape/started"
  for used in "$ORANGE_NET.2:$1" "$ORANGE_NET.11:$ORANGE_PORT" "$ORANGE_NET.11:29092" "$GRAPE_NET.11:$GRAPE_PORT"; do
    if (exec 3<>"/dev/tcp/${used%:*}/${used#*:}") 2>/dev/null; then
      rm -rf "$BED"
      die "something else listens on $used: another bed, or a service on all addresses of this host"
    fi
  done
}

up_networks() { # PORT
  local port=$1
  local name
  for name in orange grape; do
    # The endpoint's DNS server answers on 127.0.0.1 in mode names; nothing else resolves in these networks.
    echo "nameserver 127.0.0.1
options timeout:1 attempts:2" >"$BED/$name/etc/resolv.conf"
    # shellcheck disable=SC2016 # expanded by the inner shell
    setsid unshare --net --mount --propagation private sh -c '
      mount --bind "$1/hosts" /etc/hosts && mount --bind "$1/resolv.conf" /etc/resolv.conf &&
      ip link set lo up && echo $$ >"$2" && exec sleep infinity' sh "$BED/$name/etc" "$BED/$name/ns.pid" </dev/null >"$BED/$name/ns.log" 2>&1 &
  done
  for name in orange grape; do
    local tries=0
    until [ -s "$BED/$name/ns.pid" ]; do
      tries=$((tries + 1)); [ $tries -lt 100 ] || die "network $name did not come up: $(cat "$BED/$name/ns.log")"
      sleep 0.05
    done
    # A LAN on the loopback device: not every kernel has dummy devices, and all hosts of a network are in this one namespace.
    local host
    for host in 2 11 12 13 14; do in_ns "$name" ip addr add "$(net "$name").$host/24" dev lo; done
  done
  in_ns orange ip link add wan0 type veth peer name wan0 netns "$(ns_pid grape)"
  in_ns orange ip addr add "$ORANGE_WAN/32" dev wan0
  in_ns grape ip addr add "$GRAPE_WAN/32" dev wan0
  for name in orange grape; do in_ns "$name" ip link set wan0 up; done
  in_ns orange ip route add "$GRAPE_WAN/32" dev wan0 src "$ORANGE_WAN"
  in_ns grape ip route add "$ORANGE_WAN/32" dev wan0 src "$GRAPE_WAN"
  in_ns orange nft -f - <<EOF
table inet wire {
  chain input {
    type filter hook input priority 0; policy accept;
    iifname "wan0" ct state established,related accept
    iifname "wan0" ip saddr $GRAPE_WAN tcp dport $port counter accept comment "tunnel"
    iifname "wan0" counter drop comment "other"
  }
}
EOF
  in_ns grape nft -f - <<EOF
table inet wire {
  chain input {
    type filter hook input priority 0; policy accept;
    iifname "wan0" ct state established,related accept
    iifname "wan0" counter drop comment "other"
  }
  chain output {
    type filter hook output priority 0; policy accept;
    ip daddr 10.77.0.0/24 tcp dport { 9092, 9095, 9096, 9097 } tcp flags syn / syn,ack counter comment "orange-broker-dialled"
  }
}
EOF
}

tls() { # a CA, and a certificate for the brokers of each cluster, as PEM files that Kafka and every client read
  local dir=$BED/tls name
  mkdir -p "$dir"
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$dir/ca.key" -out "$dir/ca.pem" \
    -days 30 -subj "/CN=bed CA" -addext basicConstraints=critical,CA:TRUE 2>/dev/null
  for name in orange grape; do
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$dir/$name.key" -out "$dir/$name.csr" -subj "/CN=brokers of $name" 2>/dev/null
    openssl x509 -req -in "$dir/$name.csr" -CA "$dir/ca.pem" -CAkey "$dir/ca.key" -CAcreateserial -days 30 -out "$dir/$name.pem" \
      -extfile <(printf 'subjectAltName=DNS:b0.%s.test,DNS:b1.%s.test,DNS:b2.%s.test,DNS:b3.%s.test' "$name" "$name" "$name" "$name") 2>/dev/null
    cat "$dir/$name.key" "$dir/$name.pem" "$dir/ca.pem" >"$dir/$name-store.pem"
  done
}

# orange: SASL_SSL with PLAIN and SCRAM for clients; grape: SASL_PLAINTEXT with SCRAM and PLAIN. Both also have PLAINTEXT and SSL
# listeners, and one whose sessions last 5 s (SASL_SSL with PLAIN, SCRAM-SHA-512, and OAUTHBEARER with unsigned tokens).
broker_config() { # CLUSTER ID
  local name=$1 id=$2 host=b$2.$1.test net ip port; net=$(net "$1"); ip=$net.1$(($2 + 1)); port=$(cluster_port "$1")
  local main=SASL_SSL; [ "$name" = orange ] || main=SASL_PLAINTEXT
  local plain=9095 ssl=9096 short=9097; [ "$name" = orange ] || { plain=9195; ssl=9196; short=9197; }
  local uuid=orangeorangeorangeora1; [ "$name" = orange ] || uuid=grapegrapegrapegrapeg1
  local plainconf='org.apache.kafka.common.security.plain.PlainLoginModule required'
  local users='username="admin" password="admin-secret" user_admin="admin-secret" user_srckey="orange-api-secret" user_dstkey="grape-api-secret";'
  cat <<EOF
process.roles=broker,controller
node.id=$id
controller.quorum.voters=0@$net.11:29092,1@$net.12:29092,2@$net.13:29092
listeners=MAIN://$ip:$port,PLAIN://$ip:$plain,TLS://$ip:$ssl,SHORT://$ip:$short,CONTROLLER://$ip:29092
advertised.listeners=MAIN://$host:$port,PLAIN://$host:$plain,TLS://$host:$ssl,SHORT://$host:$short
listener.security.protocol.map=MAIN:$main,PLAIN:PLAINTEXT,TLS:SSL,SHORT:SASL_SSL,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAIN
controller.listener.names=CONTROLLER
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.short.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512,OAUTHBEARER
listener.name.main.plain.sasl.jaas.config=$plainconf $users
listener.name.main.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.main.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.short.plain.sasl.jaas.config=$plainconf $users
listener.name.short.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.short.oauthbearer.sasl.jaas.config=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;
listener.name.short.plain.connections.max.reauth.ms=5000
listener.name.short.scram-sha-512.connections.max.reauth.ms=5000
listener.name.short.oauthbearer.connections.max.reauth.ms=5000
ssl.keystore.type=PEM
ssl.keystore.location=$BED/tls/$name-store.pem
ssl.truststore.type=PEM
ssl.truststore.location=$BED/tls/ca.pem
log.dirs=$BED/$name/$id/data
cluster.id=$uuid
num.partitions=1
default.replication.factor=3
min.insync.replicas=2
offsets.topic.replication.factor=3
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=3
share.coordinator.state.topic.min.isr=2
share.coordinator.state.topic.num.partitions=4
group.initial.rebalance.delay.ms=0
group.coordinator.rebalance.protocols=classic,consumer,streams,share
controlled.shutdown.enable=true
auto.create.topics.enable=false
log.segment.bytes=268435456
log.retention.ms=-1
log.retention.check.interval.ms=10000
connections.max.idle.ms=7200000
socket.send.buffer.bytes=-1
socket.receive.buffer.bytes=-1
replica.socket.receive.buffer.bytes=-1
replica.lag.time.max.ms=10000
broker.session.timeout.ms=6000
controller.quorum.election.timeout.ms=1000
controller.quorum.fetch.timeout.ms=2000
num.network.threads=3
num.io.threads=4
log.cleaner.dedupe.buffer.size=33554432
EOF
  # Everybody whom the bed knows stays a super user, and what has no ACL is open: only topics that a test gives ACLs feel it.
  [ -z "${BED_AUTHORIZER:-}" ] || cat <<'EOF'
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:admin;User:srckey;User:dstkey
allow.everyone.if.no.acl.found=true
EOF
  [ -z "${BED_BROKER_EXTRA:-}" ] || printf '%b\n' "$BED_BROKER_EXTRA"
}

# Formats the storage once, by Kafka's own tool, and gives the other brokers copies with their own ids: one JVM instead of three.
format_cluster() {
  local name=$1 id uuid
  for id in 0 1 2; do mkdir -p "$BED/$name/$id"; broker_config "$name" "$id" >"$BED/$name/$id/server.properties"; done
  uuid=$(sed -n 's/^cluster.id=//p' "$BED/$name/0/server.properties")
  local scram=() user
  for user in admin:admin-secret srckey:orange-api-secret dstkey:grape-api-secret; do
    scram+=(--add-scram "SCRAM-SHA-256=[name=${user%%:*},password=${user#*:}]" --add-scram "SCRAM-SHA-512=[name=${user%%:*},password=${user#*:}]")
  done
  run_java "$name" 128m kafka.tools.StorageTool format -t "$uuid" -c "$BED/$name/0/server.properties" "${scram[@]}" >"$BED/$name/format.log" 2>&1 ||
    die "format of $name failed: $(tail -5 "$BED/$name/format.log")"
  for id in 1 2; do
    cp -r "$BED/$name/0/data" "$BED/$name/$id/data"
    sed -i -e "s/^node.id=.*/node.id=$id/" -e "s/^directory.id=.*/directory.id=$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | cut -c1-22)/" \
      "$BED/$name/$id/data/meta.properties"
  done
}

client_config() { # CLUSTER FILE
  local name=$1
  { if [ "$name" = orange ]; then
      cat <<EOF
security.protocol=SASL_SSL
sasl.mechanism=PLAIN
sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required username="srckey" password="orange-api-secret";
ssl.truststore.type=PEM
ssl.truststore.location=$BED/tls/ca.pem
EOF
    else
      cat <<EOF
security.protocol=SASL_PLAINTEXT
sasl.mechanism=SCRAM-SHA-512
sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required username="dstkey" password="grape-api-secret";
EOF
    fi
  } >"$BED/$name/client.properties"
}

start() { # CLUSTER [ID…]
  local name=$1; shift
  local ids=("$@") id; [ ${#ids[@]} -gt 0 ] || ids=(0 1 2)
  jars
  [ -e "$BED/$name/0/data" ] || format_cluster "$name"
  client_config "$name"
  jvm "$name" "${BED_HEAP:-256m}"
  inside "$name"
  for id in "${ids[@]}"; do
    # shellcheck disable=SC2016 # expanded by the inner shell
    setsid "${INSIDE[@]}" sh -c 'echo $$ $(cut -d" " -f22 /proc/$$/stat) >"$1"; shift; exec "$@"' sh "$BED/$name/$id/pid" \
      "${JAVA[@]}" kafka.Kafka "$BED/$name/$id/server.properties" </dev/null >"$BED/$name/$id/log" 2>&1 &
  done
  local port net tries=0; port=$(cluster_port "$name"); net=$(net "$name")
  for id in "${ids[@]}"; do
    until in_ns "$name" bash -c "exec 3<>/dev/tcp/$net.1$((id + 1))/$port" 2>/dev/null; do
      tries=$((tries + 1)); [ $tries -lt 1800 ] || die "broker $id of $name does not listen: $(tail -5 "$BED/$name/$id/log")"
      sleep 0.1
    done
  done
}

signal_brokers() { # SIGNAL CLUSTER [ID…]
  local signal=$1 name=$2 id pid; shift 2
  local ids=("$@"); [ ${#ids[@]} -gt 0 ] || ids=(0 1 2)
  for id in "${ids[@]}"; do
    pid=$(running "$BED/$name/$id/pid") || continue
    kill -s "$signal" "$pid" 2>/dev/null || true
  done
  for id in "${ids[@]}"; do
    while running "$BED/$name/$id/pid" >/dev/null; do sleep 0.05; done
    rm -f "$BED/$name/$id/pid"
  done
}

# The first address that a DNS server has for a name.
ask() { # HOST:PORT NAME
  local query='\x4c\x53\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00' labels label bytes at type length
  IFS=. read -ra labels <<<"$2"
  for label in "${labels[@]}"; do query+=$(printf '\\x%02x%s' ${#label} "$label"); done
  query+='\x00\x00\x01\x00\x01' # the root, type A, class IN
  exec 3<>"/dev/udp/${1%:*}/${1##*:}" || return 1
  # shellcheck disable=SC2059 # the query is the format; dd keeps it in one datagram
  printf "$query" | dd obs=512 status=none >&3 2>/dev/null || return 1
  mapfile -t bytes < <(timeout 2 dd bs=1500 count=1 status=none <&3 2>/dev/null | od -An -v -w1 -tu1 | tr -d ' ')
  exec 3<&-
  [ ${#bytes[@]} -gt 12 ] && [ $((bytes[3] & 15)) = 0 ] || return 1
  # Header, the question's name, its type and class; then records.
  skip_name 12
  at=$((at + 4))
  while [ $((at + 10)) -lt ${#bytes[@]} ]; do
    skip_name "$at"
    type=$((bytes[at] * 256 + bytes[at + 1])) length=$((bytes[at + 8] * 256 + bytes[at + 9]))
    at=$((at + 10))
    if [ $type = 1 ] && [ $length = 4 ]; then
      local IFS=.
      echo "${bytes[*]:at:4}"
      return
    fi
    at=$((at + length))
  done
  return 1
}

# Sets the caller's `at` behind the name that begins at an offset of its `bytes`.
skip_name() { # OFFSET
  at=$1
  while [ "${bytes[at]:-0}" != 0 ] && [ "${bytes[at]}" -lt 192 ]; do at=$((at + bytes[at] + 1)); done
  if [ "${bytes[at]:-0}" = 0 ]; then at=$((at + 1)); else at=$((at + 2)); fi
}

# In a network of its own a host's resolver is pointed at the endpoint's DNS server; here its answers go into the hosts file.
learn() { # NETWORK HOST:PORT
  loopback || return 0
  local hosts=$BED/$1/etc/hosts id name address tries found=()
  for id in 0 1 2; do
    name=b$id.orange.test tries=0
    until address=$(ask "$2" "$name" 2>/dev/null); do
      tries=$((tries + 1)); [ $tries -lt 50 ] || die "the DNS server at $2 has no address for $name"
      sleep 0.2
    done
    found+=("$address $name")
  done
  sed -i '/ b[0-9]*\.orange\.test$/d' "$hosts"
  printf '%s\n' "${found[@]}" | tee -a "$hosts"
}

# Runs a command in the place of this process, so that the caller's signals arrive. Where no network holds its processes
# together, a note is left for `down`.
exec_inside() { # NETWORK [--] CMD…
  local name=$1; shift
  [ "${1:-}" != -- ] || shift
  inside "$name"
  if loopback; then echo "$$ $(begun $$)" >"$BED/$name/started/$$"; fi
  exec "${INSIDE[@]}" "$@"
}

counters() {
  if loopback; then say "loopback addresses: there is no wire, so nothing is counted"; return; fi
  in_ns orange nft list table inet wire | awk '/comment/ { match($0, /packets [0-9]+/); p = substr($0, RSTART + 8, RLENGTH - 8); match($0, /comment "[^"]*"/); print "orange", substr($0, RSTART + 9, RLENGTH - 10), p }'
  in_ns grape nft list table inet wire | awk '/comment/ { match($0, /packets [0-9]+/); p = substr($0, RSTART + 8, RLENGTH - 8); match($0, /comment "[^"]*"/); print "grape", substr($0, RSTART + 9, RLENGTH - 10), p }'
}

down() {
  if loopback; then down_processes; else down_networks; fi
  rm -rf "$BED"
}

# Exactly what was started here.
down_processes() {
  local files=("$BED"/{orange,grape}/{[0-3]/pid,started/*}) file pid
  for file in "${files[@]}"; do
    if pid=$(running "$file"); then kill -9 "$pid" 2>/dev/null || true; fi
  done
  for file in "${files[@]}"; do
    while running "$file" >/dev/null; do sleep 0.05; done
  done
}

down_networks() {
  local name id pid
  for name in orange grape; do
    [ -d "$BED/$name" ] || continue
    for id in 0 1 2 3; do
      if pid=$(running "$BED/$name/$id/pid"); then kill -9 "$pid" 2>/dev/null || true; fi
    done
    pid=$(cat "$BED/$name/ns.pid" 2>/dev/null) || continue
    # Everything that lives in this network was started here.
    local ns; ns=$(readlink "/proc/$pid/ns/net" 2>/dev/null) || continue
    for proc in /proc/[0-9]*; do
      if [ "$(readlink "$proc/ns/net" 2>/dev/null)" = "$ns" ]; then kill -9 "${proc#/proc/}" 2>/dev/null || true; fi
    done
  done
}

print_env() {
  printf 'BED=%q\nORANGE_WAN=%s\nGRAPE_WAN=%s\nORANGE_PORT=%s\nGRAPE_PORT=%s\nLIBS=%q\n' "$BED" "$ORANGE_WAN" "$GRAPE_WAN" "$ORANGE_PORT" "$GRAPE_PORT" "$LIBS"
  printf 'TUNNEL_LISTEN=%s\nGRAPE_DNS=%s\nORANGE_ADMIN=%s\nGRAPE_ADMIN=%s\n' "$TUNNEL_LISTEN" "$GRAPE_DNS" "$ORANGE_ADMIN" "$GRAPE_ADMIN"
  # Addresses of the brokers' names, as name=address with commas between; empty where the network's own resolver knows them.
  printf 'ORANGE_RESOLVE=%s\nGRAPE_RESOLVE=%s\n' "$(fixed orange)" "$(fixed grape)"
}

fixed() { # NETWORK
  local net id list=; net=$(net "$1")
  loopback || return 0
  for id in 0 1 2; do list+=,b$id.$1.test=$net.1$((id + 1)); done
  echo "${list#,}"
}

case ${1:-help} in
  jars) jars ;;
  python) python ;;
  up) shift; up "$@" ;;
  start) shift; start "$@" ;;
  stop) shift; signal_brokers TERM "$@" ;;
  kill) shift; signal_brokers KILL "$@" ;;
  exec) shift; exec_inside "$@" ;;
  tool) name=$2; class=$3; shift 3; run_java "$name" "${BED_TOOL_HEAP:-256m}" "$class" "$@" ;;
  config) echo "$BED/$2/client.properties" ;;
  env) print_env ;;
  learn) shift; learn "$@" ;;
  counters) counters ;;
  down) down ;;
  *) usage ;;
esac
