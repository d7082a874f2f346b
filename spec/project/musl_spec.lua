-- The library with musl in place of glibc: it compiles, and gives the same bits.

local shell = require "spec.support.shell"
local temporary = require "spec.support.temporary"

local quote = shell.quote

local function succeeds(format, ...)
  local said, status = shell.run(format:format(...))
  assert.equal(0, status, said)
  return said
end

describe("with musl", function()
  local missing = not shell.has "musl-gcc" and "there is no musl-gcc (Debian: musl-tools)"
  local files, tree

  setup(function()
    files = temporary.folder()
    tree = files:path "tree"
    succeeds("mkdir -p %s/build && cp -a kernels src tools %s && cp -a build/Makefile " ..
             "build/*.make %s/build", quote(tree), quote(tree), quote(tree))
  end)
  teardown(function() files:remove() end)

  it("the library compiles, and the C example prints the same bits", function()
    if missing then return pending(missing) end
    succeeds("make -s -j2 -C %s/build config=debug CC=musl-gcc CUDA=no samebits", quote(tree))
    local printed = {}
    for compiler, folder in pairs { ["musl-gcc"] = tree .. "/build/debug",
                                    cc = shell.run "printf %s \"$PWD/build/release\"" } do
      local out = files:path(compiler)
      succeeds("mkdir %s && make -s -C examples/c CC=%s OUT=%s LIB=%s", quote(out), compiler,
               quote(out), quote(folder))
      printed[compiler] = succeeds("%s/logprob cpu", quote(out)):match "\n(position.*)$"
    end
    assert.is_truthy(printed.cc:find("the same bits", 1, true))
    assert.equal(printed.cc, printed["musl-gcc"])
    succeeds("grep -q ld-musl %s/logprob", quote(files:path "musl-gcc")) -- its loader
  end)

  it("its fma gives the golden vectors", function()
    if missing then return pending(missing) end
    succeeds("musl-gcc -std=c11 -O1 -ffp-contract=off -Isrc -Ispec/c -o %s " ..
             "spec/numerics/flags.c spec/c/vectors.c -lm", quote(files:path "vectors"))
    assert.is_truthy(succeeds("%s", quote(files:path "vectors")):find(": 0 wrong", 1, true))
  end)
end)
