std = "luajit"
max_line_length = 100
include_files = { "lua/**/*.lua", "bin/samebits", "spec/**/*.lua", "examples/**/*.lua",
                  "tools/*.lua", ".busted", ".luacheckrc" }
exclude_files = { "lua/samebits/cdef.lua" }
files["spec"] = { std = "+busted" }
files["examples/ci/spec"] = { std = "+busted" }
