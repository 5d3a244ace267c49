#!/usr/bin/env bash
# Brings a backup of one tracked device up to date: whole the first time, then only what changed.
#
#   incremental-backup.sh DEVICE BACKUP [STORE]
#
#   DEVICE   original or front of an attached device, in no snapshot
#   BACKUP   file that becomes a copy of the device; BACKUP.cbt records as of which snapshot
#   STORE    directory on another device, for old data while the snapshot exists (/var/tmp)
#
#   LIMIT=SIZE   most old data to keep during that time (1G)
#   VERIFY=1     compare the whole backup with the image at the end
#
# An interrupted run leaves no BACKUP.cbt, so the next one copies everything again.
set -euo pipefail

if [ $# -lt 2 ]; then
  sed -n '2,13s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
device=$1 backup=$2 store=${3:-/var/tmp}

id=$(blksnapctl snapshot_create --device "$device" --file "$store" --limit "${LIMIT:-1G}" \
  --read-only-images)
trap 'blksnapctl snapshot_destroy --id "$id" >/dev/null' EXIT
blksnapctl snapshot_take --id "$id" >/dev/null
image=$(blksnapctl snapshot_info --device "$device" --field image)

info=$(blksnapctl cbtinfo --device "$device")
generation=$(sed -n 's/^generation_id=//p' <<<"$info")
number=$(sed -n 's/^changes_number=//p' <<<"$info")
read -r old_generation old_number 2>/dev/null <"$backup.cbt" || old_generation='' old_number=''
rm -f "$backup.cbt"

# Changes are known only within one generation; a new one means that the history was interrupted.
if [ -f "$backup" ] && [ "$old_generation" = "$generation" ]; then
  list=$(blksnapctl diff --device "$device" --since "$old_number" --generation "$generation" --raw)
  ranges=0 sectors=0
  while IFS=: read -r first count && [ -n "$first" ]; do
    dd if="$image" of="$backup" bs=1M conv=notrunc status=none \
      iflag=skip_bytes,count_bytes oflag=seek_bytes \
      skip=$((first * 512)) seek=$((first * 512)) count=$((count * 512))
    ranges=$((ranges + 1)) sectors=$((sectors + count))
  done <<<"$list"
  echo "incremental: $((sectors * 512)) bytes in $ranges ranges, snapshots $old_number to $number"
else
  dd if="$image" of="$backup" bs=1M conv=sparse status=none
  echo "full: $(stat -c %s "$backup") bytes, as of snapshot $number"
fi

sync "$backup"
if [ "${VERIFY:-0}" = 1 ]; then
  cmp "$image" "$backup"
  echo "verified: the backup is the image, byte for byte"
fi
echo "$generation $number" >"$backup.cbt.new"
mv "$backup.cbt.new" "$backup.cbt"
