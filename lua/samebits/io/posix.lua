--- The system calls that file.lua, source.lua and the prompt need, as Linux has them.

local ffi = require "ffi"

-- Declared under names of our own, so that declarations in other modules cannot conflict.
ffi.cdef [[
int samebits_libc_open(const char *path, int flags, ...) __asm__("open");
int samebits_libc_close(int fd) __asm__("close");
intptr_t samebits_libc_write(int fd, const void *data, size_t size) __asm__("write");
intptr_t samebits_libc_pread(int fd, void *data, size_t size, int64_t offset) __asm__("pread");
void *samebits_libc_mmap(void *at, size_t size, int protection, int flags, int fd, int64_t offset)
  __asm__("mmap");
int samebits_libc_munmap(void *at, size_t size) __asm__("munmap");
int samebits_libc_madvise(void *at, size_t size, int advice) __asm__("madvise");
long samebits_libc_sysconf(int name) __asm__("sysconf");
int samebits_libc_statx(int dir, const char *path, int flags, unsigned int mask, void *out)
  __asm__("statx");
int samebits_libc_fsync(int fd) __asm__("fsync");
int samebits_libc_fchmod(int fd, unsigned int mode) __asm__("fchmod");
int samebits_libc_fchown(int fd, unsigned int uid, unsigned int gid) __asm__("fchown");
int samebits_libc_linkat(int from_dir, const char *from, int to_dir, const char *to, int flags)
  __asm__("linkat");
int samebits_libc_rename(const char *from, const char *to) __asm__("rename");
int samebits_libc_unlink(const char *path) __asm__("unlink");
char *samebits_libc_realpath(const char *path, char *out) __asm__("realpath");
char *samebits_libc_strerror(int error) __asm__("strerror");
int samebits_libc_getpid(void) __asm__("getpid");
int samebits_libc_mkdir(const char *path, unsigned int mode) __asm__("mkdir");
int samebits_libc_isatty(int fd) __asm__("isatty");
typedef struct samebits_window { unsigned short rows, columns, x, y; } samebits_window;
int samebits_libc_ioctl(int fd, unsigned long request, ...) __asm__("ioctl");
typedef struct samebits_timespec { long seconds, nanoseconds; } samebits_timespec;
int samebits_libc_clock_gettime(int clock, samebits_timespec *out) __asm__("clock_gettime");
]]

local C = ffi.C
local M = {}

M.EINTR, M.EEXIST, M.EISDIR, M.ENOENT, M.EINVAL = 4, 17, 21, 2, 22

local O_WRONLY, O_CREAT, O_EXCL, O_NOCTTY, O_APPEND, O_NONBLOCK, O_CLOEXEC =
  1, 0x40, 0x80, 0x100, 0x400, 0x800, 0x80000
local O_DIRECTORY = ffi.arch:find "^arm" and 0x4000 or 0x10000
local O_TMPFILE = 0x400000 + O_DIRECTORY
local PROT_READ, PROT_WRITE, MAP_PRIVATE, MAP_NORESERVE = 1, 2, 2, 0x4000
local AT_FDCWD, AT_SYMLINK_FOLLOW, AT_EMPTY_PATH = -100, 0x400, 0x1000
local STATX_BASIC_STATS = 0x7ff

--- Returns the system's words for an error, by default the last one.
function M.words(errno) return ffi.string(C.samebits_libc_strerror(errno or ffi.errno())) end

--- Returns a file descriptor for reading, or nil. O_NONBLOCK prevents waiting for the other end of
-- a FIFO, and O_NOCTTY prevents a terminal from becoming the process's controlling terminal.
function M.open(path)
  local fd = C.samebits_libc_open(path, O_NONBLOCK + O_NOCTTY + O_CLOEXEC)
  return fd >= 0 and fd or nil
end

-- The mode of new files, from which the umask's bits are removed.
local READ_AND_WRITE = ffi.cast("int", 438)  -- rw-rw-rw-
local OWNER_ALONE = ffi.cast("int", 384)     -- rw-------

--- Returns a file descriptor for writing a file that must not exist yet; nil if that fails. With
-- `private`, only its owner has access.
function M.create(path, private)
  local fd = C.samebits_libc_open(path, O_WRONLY + O_CREAT + O_EXCL + O_CLOEXEC,
                                  private and OWNER_ALONE or READ_AND_WRITE)
  return fd >= 0 and fd or nil
end

--- The same for a file without a name, in a folder. It is gone when it is closed, unless `link` has
-- given it a name. Returns nil on file systems without such files.
function M.create_unnamed(folder, private)
  local fd = C.samebits_libc_open(folder, O_WRONLY + O_TMPFILE + O_CLOEXEC,
                                  private and OWNER_ALONE or READ_AND_WRITE)
  return fd >= 0 and fd or nil
end

--- Gives a file of create_unnamed a name that must not exist yet. Returns whether that succeeded.
function M.link(fd, path)
  return C.samebits_libc_linkat(AT_FDCWD, ("/proc/self/fd/%d"):format(fd), AT_FDCWD, path,
                                AT_SYMLINK_FOLLOW) == 0
end

--- Returns a descriptor of a folder, or nil.
function M.open_folder(path)
  local fd = C.samebits_libc_open(path, O_DIRECTORY + O_CLOEXEC)
  return fd >= 0 and fd or nil
end

--- Waits until a file's data, or a folder's names, would survive a crash. Returns whether they do.
-- A descriptor that cannot be synced at all counts as success.
function M.sync(fd) return C.samebits_libc_fsync(fd) == 0 or ffi.errno() == M.EINVAL end

--- Sets the lower 12 bits of a mode. Returns whether that succeeded.
function M.set_mode(fd, mode) return C.samebits_libc_fchmod(fd, mode) == 0 end

--- Sets the owner, if not nil, and the group of a file. Returns whether that succeeded.
function M.set_owner(fd, uid, gid)
  return C.samebits_libc_fchown(fd, uid or 0xffffffff, gid) == 0
end

--- Returns a file descriptor for appending to a file, which is made for its owner alone; or nil.
function M.append(path)
  local fd = C.samebits_libc_open(path, O_WRONLY + O_CREAT + O_APPEND + O_NONBLOCK + O_CLOEXEC,
                                  OWNER_ALONE)
  return fd >= 0 and fd or nil
end

--- Makes a folder for its owner alone. Returns true, or nil.
function M.make_folder(path) return C.samebits_libc_mkdir(path, 448) == 0 or nil end

--- Whether a descriptor is a terminal.
function M.is_terminal(fd) return C.samebits_libc_isatty(fd) == 1 end

local TIOCGWINSZ = 0x5413
local LEAST = 20 -- columns; fewer are treated as a mistake

--- Returns the columns of the terminal behind a descriptor, or the value of COLUMNS if it is set;
-- nil if neither is known.
function M.columns(fd)
  local columns = tonumber(os.getenv "COLUMNS")
  if columns and columns >= LEAST and columns < math.huge then return math.floor(columns) end
  local window = ffi.new "samebits_window[1]"
  if C.samebits_libc_ioctl(fd, TIOCGWINSZ, window) == 0 and window[0].columns >= LEAST then
    return window[0].columns
  end
end

local CLOCK_MONOTONIC = 1
local now = ffi.new "samebits_timespec[1]"

--- Returns the seconds since some fixed moment.
function M.seconds()
  C.samebits_libc_clock_gettime(CLOCK_MONOTONIC, now)
  return tonumber(now[0].seconds) + tonumber(now[0].nanoseconds) * 1e-9
end

function M.close(fd) return C.samebits_libc_close(fd) == 0 end

-- struct statx, which is the same on every architecture.
ffi.cdef [[
typedef struct samebits_statx {
  uint32_t mask, block_size; uint64_t attributes; uint32_t links, uid, gid; uint16_t mode, pad;
  uint64_t inode, size, blocks, attributes_mask;
  struct { int64_t seconds; uint32_t nanoseconds; int32_t pad; } read, born, changed, written;
  uint32_t special_major, special_minor, device_major, device_minor; uint64_t spare[14];
} samebits_statx;
]]

local KINDS = { [4] = "directory", [8] = "file" }
local function statx(dir, path, flags)
  local out = ffi.new "samebits_statx"
  if C.samebits_libc_statx(dir, path, flags, STATX_BASIC_STATS, out) ~= 0 then return nil end
  return {
    kind = KINDS[math.floor(out.mode / 4096)] or "other", size = tonumber(out.size),
    mode = out.mode % 4096, uid = out.uid, gid = out.gid,
    file = ("%u:%u:%s"):format(out.device_major, out.device_minor, tostring(out.inode)),
    written = ("%s.%09u"):format(tostring(out.written.seconds), out.written.nanoseconds),
  }
end

--- Returns a description of the file at a path, with links followed: `kind` ("file", "directory" or
-- "other"), `size` in bytes, `mode` (the lower 12 bits), `uid`, `gid`, `file` (equal only for the
-- same file) and `written` (when its bytes last changed); nil if that fails.
function M.stat_path(path) return statx(AT_FDCWD, path, 0) end

--- The same for a descriptor.
function M.stat(fd) return statx(fd, "", AT_EMPTY_PATH) end

--- Returns a path's kind, or nil.
function M.kind_of_path(path)
  local found = M.stat_path(path)
  return found and found.kind
end

-- The existing maps: their sizes by their first addresses. Memory that is not listed here is not a
-- file's, and is neither unmapped nor given back.
local maps = {}

local function address(at) return tonumber(ffi.cast("uintptr_t", at)) end

--- Makes a private map of a file: pages are read when they are touched, and copied when they are
-- written, so that no write reaches the file. Returns nil if that fails. MAP_NORESERVE is used
-- because a map may be larger than the memory as long as few of its pages are written.
function M.map(fd, size)
  local at = C.samebits_libc_mmap(nil, size, PROT_READ + PROT_WRITE, MAP_PRIVATE + MAP_NORESERVE,
                                  fd, 0)
  if ffi.cast("intptr_t", at) == -1 then return nil end
  maps[address(at)] = size
  return at
end

--- Ends the map at the address `at`; an error if there is none.
function M.unmap(at)
  local size = maps[address(at)]
  if not size then error(("unmap: no map begins at %#x"):format(address(at)), 2) end
  maps[address(at)] = nil
  C.samebits_libc_munmap(at, size)
end

local SC_PAGESIZE, MADV_DONTNEED = 30, 4

local function is_mapped(first, past)
  for base, size in pairs(maps) do
    if first >= base and past <= base + size then return true end
  end
  return false
end

--- Gives back the pages of a map that lie in `size` bytes from `at`. The page that `at` is in is
-- included; the last page is not if it continues past the bytes. The pages are read again when they
-- are touched, and data written to them is lost. This is a hint and cannot fail.
--
-- Bytes that do not all lie in one map are an error and stay unchanged, because the system would
-- zero any other memory, such as the heap.
function M.forget(at, size)
  local first = address(at)
  if not is_mapped(first, first + size) then
    error(("forget: %.0f bytes at %#x do not lie in the map of a file"):format(size, first), 2)
  end
  local page = tonumber(C.samebits_libc_sysconf(SC_PAGESIZE))
  -- A map begins at a page, so rounding down stays inside it.
  local from = first - first % page
  local past = first + size - (first + size) % page
  if past <= from then return end
  C.samebits_libc_madvise(ffi.cast("void *", ffi.cast("uintptr_t", from)), past - from,
                          MADV_DONTNEED)
end

-- Moves `size` bytes by calls of move(done, n), which move at most n bytes and return how many, or
-- a negative number. Pieces are small, because a single call ends before 2 GiB; a signal only
-- repeats one. Returns the bytes that were moved, fewer than `size` only if a call moved none; nil
-- if one failed.
local function in_pieces(size, move)
  local done = 0
  while done < size do
    local n = tonumber(move(done, math.min(size - done, 2 ^ 26)))
    if n == 0 then break end
    if n > 0 then
      done = done + n
    elseif ffi.errno() ~= M.EINTR then
      return nil
    end
  end
  return done
end

--- Reads up to `size` bytes of a file from byte `first` on. Returns the number of bytes, which is
-- less than `size` only if the file ends; nil if that fails.
function M.read_at(fd, to, first, size)
  local p = ffi.cast("uint8_t *", to)
  return in_pieces(size, function(done, n)
    return C.samebits_libc_pread(fd, p + done, n, first + done)
  end)
end

--- Writes `size` bytes. Returns true, or nil.
function M.write(fd, data, size)
  local p = ffi.cast("const uint8_t *", data)
  return in_pieces(size, function(done, n)
    return C.samebits_libc_write(fd, p + done, n)
  end) == size or nil
end

function M.rename(from, to) return C.samebits_libc_rename(from, to) == 0 end
function M.unlink(path) return C.samebits_libc_unlink(path) == 0 end
function M.pid() return C.samebits_libc_getpid() end

--- Returns the path that a path leads to, with links followed; nil if nothing is there.
function M.real_path(path)
  local out = ffi.new("char[4097]")
  if C.samebits_libc_realpath(path, out) == nil then return nil end
  return ffi.string(out)
end

return M
