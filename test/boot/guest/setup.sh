#!/bin/sh
# Makes the volumes, and an fstab that knows nothing of fronts. $1: the empty disk
set -ex
vgcreate vg "$1"
for name in uuid label name other; do lvcreate --yes --wipesignatures n --zero n --size 310M --name $name vg; done
lvcreate --yes --wipesignatures n --zero n --size 64M --name swap vg
udevadm settle
mkswap -U 33333333-3333-3333-3333-333333333333 /dev/vg/swap
mkfs.ext4 -q -U 11111111-1111-1111-1111-111111111111 /dev/vg/uuid
mkfs.xfs -q -L 'my data' /dev/vg/label
mkfs.ext4 -q /dev/vg/name
mkfs.ext4 -q -U 22222222-2222-2222-2222-222222222222 /dev/vg/other
mkdir -p /srv/uuid /srv/label /srv/name /srv/other
cat >> /etc/fstab << 'F'
UUID=11111111-1111-1111-1111-111111111111 /srv/uuid ext4 defaults 0 2
LABEL=my\040data /srv/label xfs defaults 0 0
/dev/vg/name /srv/name ext4 defaults 0 2
UUID=22222222-2222-2222-2222-222222222222 /srv/other ext4 defaults 0 2
F
cat > /etc/blksnap/blksnap.toml << 'F'
[[device]]
device = "/dev/vg/uuid"
persistent = true

[[device]]
device = "/dev/vg/label"
persistent = true

[[device]]
device = "/dev/mapper/vg-name"
persistent = true

[[device]]
device = "/dev/vg/swap"

[[device]]
device = "/dev/vg/absent"
wait-seconds = 3
F
