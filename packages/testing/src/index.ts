export { type Certified, certificateFolder, certify } from "./certificates.js";
export { type DatagramReceiver, receiveDatagrams } from "./datagrams.js";
export { Dice } from "./dice.js";
export { eventually } from "./eventually.js";
export { FakeS3, type S3Fault } from "./fake-s3.js";
export { HungFileSystem } from "./hung-file-system.js";
export { nbdOption, u32 } from "./nbd-words.js";
export { lacksPrograms, lacksRoot, testUnless } from "./needs.js";
