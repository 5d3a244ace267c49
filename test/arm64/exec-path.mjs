/** Loaded before everything else under qemu-user: what a program starts as itself has to be emulated, too. */
process.execPath = process.env.BLKSNAP_EMULATED_NODE;
