#!/bin/sh
# Makes the volumes, and an fstab that knows nothing of fronts. $1: the empty disk
set -ex
vgcreate vg "$1"
for name in uuid label name unit other; do lvcreate --yes --wipesignatures n --zero n --size 310M --name $name vg; done
for name in swap home; do lvcreate --yes --wipesignatures n --zero n --size 64M --name $name vg; done
udevadm settle
mkswap -U 33333333-3333-3333-3333-333333333333 /dev/vg/swap
mkfs.ext4 -q -U 11111111-1111-1111-1111-111111111111 /dev/vg/uuid
mkfs.xfs -q -L 'my data' /dev/vg/label
mkfs.ext4 -q /dev/vg/name
mkfs.ext4 -q /dev/vg/unit
mkfs.ext4 -q /dev/vg/home
mkfs.ext4 -q -U 22222222-2222-2222-2222-222222222222 /dev/vg/other
if modprobe --dry-run dm-crypt && [ -x /usr/bin/systemd-cryptsetup ]; then
  # One is tracked as it is opened, and comes with the network; of the other what it lies on.
  mkdir -p /etc/blksnap/blksnap.toml.d
  echo "a key of this test" > /etc/test.key
  for name in above below; do
    lvcreate --yes --wipesignatures n --zero n --size 64M --name $name vg
    udevadm settle
    cryptsetup luksFormat --batch-mode --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 /dev/vg/$name /etc/test.key
    cryptsetup open --key-file /etc/test.key /dev/vg/$name $name
    mkfs.ext4 -q /dev/mapper/$name
    cryptsetup close $name
    mkdir -p /srv/$name
  done
  echo "above UUID=$(cryptsetup luksUUID /dev/vg/above) /etc/test.key luks,_netdev" > /etc/crypttab
  echo "below /dev/vg/below /etc/test.key luks" >> /etc/crypttab
  echo "/dev/mapper/above /srv/above ext4 _netdev 0 2" >> /etc/fstab
  echo "/dev/mapper/below /srv/below ext4 defaults 0 2" >> /etc/fstab
  printf '[[device]]\ndevice = "/dev/mapper/above"\npersistent = true\nwait-seconds = 0\n' > /etc/blksnap/blksnap.toml.d/crypt.toml
  printf '[[device]]\ndevice = "/dev/vg/below"\npersistent = true\n' >> /etc/blksnap/blksnap.toml.d/crypt.toml
fi
mkdir -p /srv/uuid /srv/label /srv/name /srv/unit /srv/other
cat > /etc/systemd/system/srv-unit.mount << 'U'
[Mount]
What=/dev/vg/unit
Where=/srv/unit

[Install]
WantedBy=local-fs.target
U
systemctl enable srv-unit.mount
# It is mounted when somebody looks into it, where the kernel can do that.
home=
if [ -e /dev/autofs ]; then home=,x-systemd.automount; fi
cat >> /etc/fstab << F
UUID=11111111-1111-1111-1111-111111111111 /srv/uuid ext4 defaults 0 2
LABEL=my\\040data /srv/label xfs defaults 0 0
/dev/vg/name /srv/name ext4 defaults 0 2
/dev/vg/home /home ext4 nofail$home 0 2
UUID=22222222-2222-2222-2222-222222222222 /srv/other ext4 defaults 0 2
F
# On a busy host a freeze may take long.
cat > /etc/blksnap/blksnap.toml << 'F'
[daemon]
freeze-timeout = 60000

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
device = "/dev/vg/unit"
persistent = true

[[device]]
device = "/dev/vg/home"
persistent = true

[[device]]
device = "/dev/vg/swap"

[[device]]
device = "/dev/vg/absent"
wait-seconds = 3
F
