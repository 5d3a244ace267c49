export { allOf } from "./all-of.js";
export { BlksnapError, type BlksnapErrorOptions } from "./blksnap-error.js";
export { describeFailure, errnoNameOf, messageOf } from "./describe.js";
export { errnoName, errnoNumber } from "./errno.js";
export {
  EACCES,
  EAGAIN,
  EBUSY,
  ECANCELED,
  EEXIST,
  EFAULT,
  EINTR,
  EINVAL,
  EIO,
  EISDIR,
  EMFILE,
  ENODEV,
  ENOENT,
  ENOMEM,
  ENOSPC,
  ENOTBLK,
  ENOTDIR,
  ENOTTY,
  EOPNOTSUPP,
  EPERM,
  ESTALE,
  ETIME,
  ETIMEDOUT,
} from "./errno-numbers.js";
