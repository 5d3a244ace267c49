# Freezes file systems for a take and thaws them, whatever becomes of the daemon.
#
#   sh -c "$(cat freeze-guard.sh)" freeze-guard LIMIT-SECONDS APART  3</dev/null  4</mnt/one  5</mnt/two
#
# The file systems come as open directories, or as files where no directory of theirs is to be had: so they
# stay the ones that were meant, however they are named, mounted over or unmounted meanwhile. APART is
# uring-apart, for files: fsfreeze takes directories alone.
#
#   on the input        answer on the output
#   freeze FD           frozen FD, or failed FD MESSAGE; one at a time, in the order of freezing
#   adopt FD            none: it is frozen already, and this guard shall thaw it
#   the end             everything is thawed, the last one first, and the guard ends
#                       stuck FD MESSAGE for each file system that could not be thawed
#
# The end of the input is the daemon's word that the take is over, as well as its death. It comes by
# itself after the limit, for a daemon that lives but makes no progress.
#
# After the daemon's death a thaw may wait for I/O until the next daemon serves the device. That is
# harmless: nothing waits for this guard.

# A signal to all of the daemon's processes must not end the one that thaws.
trap '' HUP INT QUIT TERM PIPE

# For /proc/self/fd/N the kernel looks into the process that asks: it has inherited N.
change() {
  if [ -f "/proc/self/fd/$2" ]; then
    "$apart" 0 "$1" "/proc/self/fd/$2" 2>&1
  elif [ "$1" = freeze ]; then
    fsfreeze --freeze "/proc/self/fd/$2" 2>&1
  else
    fsfreeze --unfreeze "/proc/self/fd/$2" 2>&1
  fi
}

freeze() {
  if message=$(change freeze "$1"); then
    # Frozen, even when no reader is left.
    echo "frozen $1" || :
  else
    echo "failed $1 ${message##*: }"
    return 1
  fi
}

# Tries again, for a machine that is short of memory or processes.
thaw() {
  for pause in 1 2 4 0; do
    message=$(change thaw "$1") && return
    case $message in
      # Another program has thawed it.
      *"Invalid argument") return ;;
    esac
    sleep "$pause"
  done
  echo "stuck $1 ${message##*: }"
}

# Waits until the freeze under way has ended; false when the wait was cut short. Only the last one
# can be under way, because the next is asked for after its answer.
settle() {
  [ -z "$job" ] && return
  wait "$job"
  status=$?
  [ "$status" -gt 128 ] && return 1
  [ "$status" -eq 0 ] && frozen="$pending $frozen"
  job=
}

# Cuts waits short, again and again: a signal just before a wait would be lost on it. Its sleep ends
# with it, because that holds the directories open too.
tick() {
  trap 'kill -KILL "$!"; wait "$!"; exit' USR2
  while :; do
    sleep 1 &
    wait "$!"
    kill -USR1 "$self" || exit
  done
}

# One after the other as long as that goes quickly, then all at once: one that hangs must not keep
# the others frozen.
thaw_all() {
  patient=yes
  trap 'patient=' USR1
  tick &
  clock=$!
  settle
  for fd in $frozen; do
    thaw "$fd" &
    [ -n "$patient" ] && wait "$!"
  done
  frozen=
  until settle; do :; done
  [ -n "$frozen" ] && thaw "${frozen%% *}"
  trap '' USR1
  kill -USR2 "$clock"
  wait
}

# Copies the input until it ends or the limit has come.
relay() {
  cat <&3 &
  reader=$!
  (
    trap 'kill -KILL "$!"; wait "$!"; exit' USR2
    sleep "$1" &
    wait "$!"
    kill -KILL "$reader"
  ) >/dev/null &
  clock=$!
  wait "$reader"
  exec >/dev/null
  kill -USR2 "$clock"
  wait "$clock"
}

obey() {
  read -r self rest </proc/self/stat
  frozen= job=
  while read -r verb fd; do
    case $verb in
      freeze)
        settle
        freeze "$fd" &
        job=$! pending=$fd
        ;;
      adopt) frozen="$fd $frozen" ;;
    esac
  done
  thaw_all
}

# What runs beside the shell has no standard input of its own.
exec 3<&0
apart=$2
relay "$1" | obey
