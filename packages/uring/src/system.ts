/** System calls that node:fs does not offer, for control work. */
import { UringError } from "./errors.js";
import { native } from "./native.js";

const MLOCK_ONFAULT = 1;
const STDERR_FD = 2;
const EFD_CLOEXEC = 0o2000000;

function check(status: number, what: string): number {
  if (status < 0) throw new UringError("SYSTEM_CALL_FAILED", what, status);
  return status;
}

/**
 * ioctl(2). `argument` is the structure's bytes (read and written in place) or a plain number.
 * @throws UringError SYSTEM_CALL_FAILED with the errno of the driver
 */
export function ioctl(fd: number, request: number, argument: ArrayBufferView | number = 0): number {
  return check(native.ioctl(fd, request, argument), `ioctl 0x${request.toString(16)} failed`);
}

/** ioctl(2) on a pool thread, for calls that may block. Resolves with a value or a negative errno. */
export function ioctlAsync(
  fd: number,
  request: number,
  argument: ArrayBufferView | number = 0,
): Promise<number> {
  return native.ioctlAsync(fd, request, argument);
}

export const LockType = { READ: 0, WRITE: 1, UNLOCK: 2 } as const;

/**
 * An open-file-description lock on the whole file: it belongs to the descriptor and all its duplicates, including
 * those of requests in flight. Returns false if another process holds it.
 */
export function tryLockFile(fd: number, type: number = LockType.WRITE): boolean {
  return isLocked(native.lockFile(fd, type));
}

/** As tryLockFile(), on a pool thread: the server of a network file system may never answer. */
export async function tryLockFileAsync(
  fd: number,
  type: number = LockType.WRITE,
): Promise<boolean> {
  return isLocked(await native.lockFileAsync(fd, type));
}

function isLocked(status: number): boolean {
  if (status === -11 || status === -13) return false;
  check(status, "cannot lock the file");
  return true;
}

/**
 * flock(2), exclusively: another kind of lock, which tryLockFile() neither sees nor blocks. It ends with the last
 * duplicate of the descriptor. Returns false if another process holds it.
 */
export function tryFlock(fd: number): boolean {
  const status = native.lockWholeFile(fd);
  if (status === -11) return false;
  check(status, "cannot lock the file");
  return true;
}

/** Switches I/O of the open file to the page cache, for all that share it. */
export function endDirectIo(fd: number): void {
  check(native.endDirectIo(fd), "cannot end direct I/O");
}

/** A file that lives in memory and ends with its last descriptor (memfd_create, close-on-exec). */
export function createMemoryFile(name: string): number {
  return check(native.memoryFile(name, 1), `cannot make the memory file ${name}`);
}

/** An eventfd for a Reactor, which a child process does not get. @throws UringError SYSTEM_CALL_FAILED: EMFILE, ENFILE */
export function createEventFd(): number {
  return check(native.eventFd(0, EFD_CLOEXEC), "cannot make an eventfd");
}

/** Backlog of connections for accept. */
const LISTEN_BACKLOG = 128;

/**
 * A unix stream socket that listens at `path`, which must not exist; its descriptor is for prepareAccept(). Users who
 * may write to the file (`mode`) may connect.
 * @throws UringError SYSTEM_CALL_FAILED: EADDRINUSE, ENAMETOOLONG (108 bytes and more), EACCES, ENOENT
 */
export function listenLocal(path: string, mode: number): number {
  return check(native.listenLocal(path, mode, LISTEN_BACKLOG), `cannot listen at ${path}`);
}

/**
 * Another descriptor of the same open file, which a child process does not get (fcntl(2), F_DUPFD_CLOEXEC).
 * @throws UringError SYSTEM_CALL_FAILED: EBADF, EMFILE
 */
export function duplicateFd(fd: number): number {
  return check(native.duplicate(fd), `cannot duplicate descriptor ${fd}`);
}

/**
 * Two connected unix stream sockets, for parts of this process; they have no path.
 * @throws UringError SYSTEM_CALL_FAILED: EMFILE, ENFILE, ENOMEM
 */
export function socketPair(): [number, number] {
  const pair = native.socketPair();
  if (typeof pair !== "number") return pair;
  throw new UringError("SYSTEM_CALL_FAILED", "cannot make a pair of sockets", pair);
}

const SOL_SOCKET = 1;
const SO_SNDBUF = 7;
const SO_SNDBUFFORCE = 32;

/**
 * Sets how much a socket buffers, including the kernel's overhead: the wanted size with CAP_NET_ADMIN, else at most
 * net.core.wmem_max. If neither is possible, it stays unchanged.
 */
export function enlargeSendBuffer(fd: number, bytes: number): void {
  if (native.setSocketOption(fd, SOL_SOCKET, SO_SNDBUFFORCE, bytes) === 0) return;
  native.setSocketOption(fd, SOL_SOCKET, SO_SNDBUF, bytes);
}

/** The kernel's id of the calling thread. */
export function threadId(): number {
  return native.threadId();
}

/**
 * Sends a datagram to a Unix socket and never waits; "@" begins an abstract name. Returns its length or a negative
 * errno, -EAGAIN if the receiver's queue is full.
 */
export function sendDatagram(path: string, text: string): number {
  return native.sendDatagram(path, text);
}

/** prctl(2) with one argument; returns a negative errno instead of throwing. */
export function prctl(option: number, argument: number): number {
  return native.prctl(option, argument);
}

/**
 * Locks the pages of a range in memory from their first use on (mlock2 with MLOCK_ONFAULT); returns a negative errno
 * instead of throwing. Not for memory of the JavaScript heap: V8 frees pages of it with MADV_DONTNEED, which fails on
 * locked pages, and takes that failure as fatal. For the same reason mlockall(2) is not offered.
 */
export function lockMemory(address: number, lengthBytes: number): number {
  return native.lockMemory(address, lengthBytes, MLOCK_ONFAULT);
}

/**
 * execv(2): runs another program as this process, with its environment and standard streams. All other descriptors
 * are closed, and pending work of this program is lost.
 * @param words the arguments after the program's own name
 * @param passedFds how many descriptors from 3 on the program keeps, as a service manager passes sockets
 * @throws UringError SYSTEM_CALL_FAILED; it does not return otherwise
 */
export function replaceProcess(path: string, words: readonly string[], passedFds = 0): never {
  const ended = native.replaceProcess(path, words, STDERR_FD + passedFds);
  throw new UringError("SYSTEM_CALL_FAILED", `cannot run ${path}`, ended);
}

/**
 * _exit(2): the process ends with all its threads, wherever they are, as by a kill. Nothing is flushed, no handler
 * runs, and it does not wait for operations of its rings (execve(2) waits for those of the calling thread).
 */
export function endProcess(status: number): never {
  return native.endProcess(status);
}

/**
 * Ties the process to the calling worker thread: if the thread ends, by an exception, by process.exit() or for lack
 * of memory, the process ends with `status` at once, as by a kill. For a thread whose work the kernel would wait for
 * until the process is gone.
 * @returns a function that undoes it; call it on the same thread before that ends in order
 */
export function endProcessWithThread(status: number): () => void {
  check(native.guardThread(status), "cannot tie the process to a thread");
  return () => void native.releaseThread(status);
}

/** Binds the calling thread to one CPU; returns a negative errno instead of throwing. */
export function setAffinity(cpu: number): number {
  return native.setAffinity(cpu);
}

/** Numbers of capabilities(7), from linux/capability.h. */
export const Capability = { SYS_ADMIN: 21 } as const;

/**
 * Runs `action` while a capability is not in the calling thread's effective set (capset(2) is for
 * one thread), and puts it back afterwards. Commands that io_uring starts meanwhile run without it.
 * @throws UringError SYSTEM_CALL_FAILED; what `action` throws
 */
export function withoutCapability<Value>(capability: number, action: () => Value): Value {
  const wasEffective = check(native.setCapability(capability, false), "cannot drop a capability");
  try {
    return action();
  } finally {
    if (wasEffective === 1) check(native.setCapability(capability, true), "cannot take it back");
  }
}

/** What direct I/O on a file needs, in bytes. */
export interface DirectIoAlignment {
  readonly memoryAlignmentBytes: number;
  readonly offsetAlignmentBytes: number;
}

/** statx(2) with STATX_DIOALIGN (Linux 6.1); undefined where kernel or file system cannot say. */
export function directIoAlignment(fd: number): DirectIoAlignment | undefined {
  const answer = native.directIoAlignment(fd);
  if (typeof answer === "number") return undefined;
  const [memoryAlignmentBytes, offsetAlignmentBytes] = answer;
  return offsetAlignmentBytes === 0 ? undefined : { memoryAlignmentBytes, offsetAlignmentBytes };
}
