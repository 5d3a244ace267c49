/** How the guest's processor is run. */

const EMULATED = ["-accel", "tcg,thread=multi", "-cpu", "max"];

/** @returns {Promise<string[]>} arguments for qemu */
export async function acceleration() {
  return process.env.ACC ? process.env.ACC.split(" ") : EMULATED;
}
