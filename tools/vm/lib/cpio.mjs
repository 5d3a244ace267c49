/**
 * An archive in the "newc" format that the kernel unpacks as its first root file system. Written here rather than with the
 * cpio program, so that each run can add its own files without temporary folders.
 */

const FOLDER = 0o040755;
const FILE = 0o100755;

function field(value) {
  return value.toString(16).padStart(8, "0").toUpperCase();
}

function padTo4(length) {
  return Buffer.alloc((4 - (length % 4)) % 4);
}

function entry(name, mode, content, inode) {
  const nameBytes = Buffer.from(`${name}\0`);
  const header = Buffer.from(
    `070701${[inode, mode, 0, 0, 1, 0, content.length, 0, 0, 0, 0, nameBytes.length, 0].map(field).join("")}`,
  );
  const headLength = header.length + nameBytes.length;
  return [header, nameBytes, padTo4(headLength), content, padTo4(content.length)];
}

/**
 * @param {string[]} folders names without a leading slash, parents first
 * @param {Record<string, Buffer | string>} files content by name
 * @returns {Buffer}
 */
export function cpioArchive(folders, files) {
  let inode = 1;
  const parts = [];
  for (const folder of folders) parts.push(...entry(folder, FOLDER, Buffer.alloc(0), inode++));
  for (const [name, content] of Object.entries(files)) {
    parts.push(...entry(name, FILE, Buffer.from(content), inode++));
  }
  parts.push(...entry("TRAILER!!!", 0, Buffer.alloc(0), 0));
  return Buffer.concat(parts);
}
