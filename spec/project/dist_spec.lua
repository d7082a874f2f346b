-- make dist: the tarball holds what is committed, is refused where that is not the release, and
-- has all that a build needs, without git and without network.

local budget = require "spec.support.budget"
local shell = require "spec.support.shell"
local temporary = require "spec.support.temporary"

local run = shell.run

local function succeeds(...)
  local said, status = run(...)
  assert.equal(0, status, said)
  return said
end

describe("make dist", function()
  if not shell.has "git" or select(2, run "test -e .git") ~= 0 then
    it("makes a tarball", function() pending "not a git checkout" end)
    return
  end

  -- A repository of the committed files as they are now, without the large ones.
  local files, tree
  local git = "git -c user.name=a -c user.email=a@b -C %s "
  setup(function()
    files = temporary.folder()
    tree = files:path "check out"
    succeeds("mkdir %s && git ls-files -z -- Makefile '*.rockspec' '*.md' LICENSE bin build " ..
             "kernels lua src tools | xargs -0 cp -a --parents -t %s", tree, tree)
    succeeds(git .. "init -q", tree)
    succeeds(git .. "add -f -A", tree)
    succeeds(git .. "commit -q -m a", tree)
  end)
  teardown(function() files:remove() end)

  -- Makes the tarball into a folder of that name. Returns its path.
  local function dist(name)
    local folder = files:path(name)
    local said = succeeds("mkdir %s && %s/tools/dist %s", folder, tree, folder)
    assert.matches("/samebits%-%d+%.%d+%.%d+%.tar%.gz\n$", said)
    return (said:gsub("\n$", ""))
  end

  local path
  setup(function() path = dist "one" end)

  it("holds every committed file under one folder, and the same bytes each time", function()
    local list = succeeds("tar tzf %s | grep -v '/$' | sed 's,^[^/]*/,,' | LC_ALL=C sort", path)
    assert.equal(succeeds(git .. "ls-files | LC_ALL=C sort", tree), list)
    succeeds("cmp %s %s", path, dist "two")
    succeeds("cd %s && sha256sum -c --quiet *.sha256", files:path "one")
  end)

  it("unpacks to a tree whose build lacks no file", function()
    local to = files:path "unpacked"
    succeeds("mkdir %s && tar xzf %s -C %s --strip-components 1", to, path, to)
    -- Git would find the repository around the folder, if there was one.
    local make = "env GIT_DIR=/nowhere make -s -C %s CUDA=no "
    succeeds(make .. "-n", to)
    if budget.ALL then
      succeeds(make .. "-j2", to)
      succeeds("cd %s && env -u SAMEBITS_LIB LUA_PATH=\"./lua/?.lua;;\" bin/samebits info", to)
    end
  end)

  local function refused(words, change)
    local folder = files:path(words)
    succeeds("mkdir %s", folder)
    succeeds(change, tree)
    local said, status = run("%s/tools/dist %s", tree, folder)
    assert.equal(1, status, said)
    assert.truthy(said:find(words, 1, true), said)
    assert.equal("", succeeds("ls %s", folder))
    succeeds(git .. "reset -q --hard HEAD", tree)
  end

  it("refuses a tree that differs from its commit", function()
    refused("files differ from the last commit", "echo >>%s/README.md")
  end)

  it("refuses a version that the changelog or the rockspec does not have", function()
    local change = "sed -i 's/^#define SB_VERSION .*/#define SB_VERSION \"7.8.9\"/' " ..
                   "src/samebits.h && git -c user.name=a -c user.email=a@b commit -q -a -m b"
    succeeds(git .. "branch before", tree)
    refused("no rockspec of 7.8.9", "cd %s && " .. change)
    succeeds(git .. "reset -q --hard before", tree)
    refused("no entry of 7.8.9", "cd %s && sed -i 's/^version = .*/version = \"7.8.9-1\"/' " ..
            "*.rockspec && " .. change)
  end)
end)
