/**
 * The kernel's errnos, from `include/uapi/asm-generic/errno-base.h` and `errno.h`: one name for each number. Other
 * tables have two names for some numbers (EAGAIN and EWOULDBLOCK, EOPNOTSUPP and ENOTSUP), and lack others (ENOTBLK);
 * a decision by such a name would depend on the table.
 */

/** Names from number 1 on; `-` for unused numbers. */
const NAMES: readonly string[] = `
  EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT
  ENOTBLK EBUSY EEXIST EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG
  ENOSPC ESPIPE EROFS EMLINK EPIPE EDOM ERANGE EDEADLK ENAMETOOLONG ENOLCK ENOSYS ENOTEMPTY
  ELOOP - ENOMSG EIDRM ECHRNG EL2NSYNC EL3HLT EL3RST ELNRNG EUNATCH ENOCSI EL2HLT EBADE EBADR
  EXFULL ENOANO EBADRQC EBADSLT - EBFONT ENOSTR ENODATA ETIME ENOSR ENONET ENOPKG EREMOTE
  ENOLINK EADV ESRMNT ECOMM EPROTO EMULTIHOP EDOTDOT EBADMSG EOVERFLOW ENOTUNIQ EBADFD EREMCHG
  ELIBACC ELIBBAD ELIBSCN ELIBMAX ELIBEXEC EILSEQ ERESTART ESTRPIPE EUSERS ENOTSOCK EDESTADDRREQ
  EMSGSIZE EPROTOTYPE ENOPROTOOPT EPROTONOSUPPORT ESOCKTNOSUPPORT EOPNOTSUPP EPFNOSUPPORT
  EAFNOSUPPORT EADDRINUSE EADDRNOTAVAIL ENETDOWN ENETUNREACH ENETRESET ECONNABORTED ECONNRESET
  ENOBUFS EISCONN ENOTCONN ESHUTDOWN ETOOMANYREFS ETIMEDOUT ECONNREFUSED EHOSTDOWN EHOSTUNREACH
  EALREADY EINPROGRESS ESTALE EUCLEAN ENOTNAM ENAVAIL EISNAM EREMOTEIO EDQUOT ENOMEDIUM
  EMEDIUMTYPE ECANCELED ENOKEY EKEYEXPIRED EKEYREVOKED EKEYREJECTED EOWNERDEAD ENOTRECOVERABLE
  ERFKILL EHWPOISON
`
  .trim()
  .split(/\s+/);

/** Aliases that C programs and Node use. */
const ALIASES: ReadonlyMap<string, string> = new Map([
  ["EWOULDBLOCK", "EAGAIN"],
  ["ENOTSUP", "EOPNOTSUPP"],
  ["EDEADLOCK", "EDEADLK"],
]);

const NUMBERS: ReadonlyMap<string, number> = new Map(NAMES.map((name, index) => [name, index + 1]));

/** The kernel's name of an errno ("EBUSY"), of either sign; "errno 530" for an unknown number. */
export function errnoName(errno: number): string {
  const number = Math.abs(errno);
  const name = NAMES[number - 1] ?? "-";
  return name === "-" ? `errno ${number}` : name;
}

/** The number of an errno's name or alias; undefined for other text. */
export function errnoNumber(name: string): number | undefined {
  return name === "-" ? undefined : NUMBERS.get(ALIASES.get(name) ?? name);
}
