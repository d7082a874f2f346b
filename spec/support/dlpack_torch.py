"""Tensors of PyTorch into Lua and back, both in this process; prints "fine". Exits with 77 where
LuaJIT is no shared library."""
import ctypes
import ctypes.util
import gc
import sys
import weakref

import torch
from torch.utils import dlpack

NAME = ctypes.util.find_library("luajit-5.1")
if not NAME:
    print("LuaJIT is no shared library here")
    sys.exit(77)

lua, api = ctypes.CDLL(NAME), ctypes.pythonapi
pointer = ctypes.c_void_p
for function in (lua.luaL_newstate, lua.lua_touserdata):
    function.restype = pointer
lua.lua_tolstring.restype = ctypes.c_char_p
lua.lua_tonumber.restype = ctypes.c_double
lua.lua_tonumber.argtypes = lua.lua_touserdata.argtypes = [pointer, ctypes.c_int]
lua.lua_tolstring.argtypes = [pointer, ctypes.c_int, pointer]
lua.luaL_openlibs.argtypes = [pointer]
lua.luaL_loadstring.argtypes = [pointer, ctypes.c_char_p]
lua.lua_pushlightuserdata.argtypes = [pointer, pointer]
lua.lua_pcall.argtypes = [pointer, ctypes.c_int, ctypes.c_int, ctypes.c_int]
lua.lua_settop.argtypes = [pointer, ctypes.c_int]
api.PyCapsule_GetPointer.restype = pointer
api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
api.PyCapsule_SetName.argtypes = [ctypes.py_object, ctypes.c_char_p]
api.PyCapsule_New.restype = ctypes.py_object
api.PyCapsule_New.argtypes = [pointer, ctypes.c_char_p, pointer]

DLTENSOR, USED = b"dltensor", b"used_dltensor"      # kept alive: capsules refer to their names
state = lua.luaL_newstate()
lua.luaL_openlibs(state)


def run(code, argument=None):
    """Runs Lua code, with a pointer as its argument; its result as a number."""
    if lua.luaL_loadstring(state, code.encode()) == 0:
        lua.lua_pushlightuserdata(state, argument)
        if lua.lua_pcall(state, 1, 1, 0) == 0:
            result = lua.lua_tonumber(state, -1)
            lua.lua_settop(state, 0)
            return result
    raise SystemExit(lua.lua_tolstring(state, -1, None).decode())


def give(tensor):
    """The DLManagedTensor of a tensor; the capsule is marked as used."""
    capsule = dlpack.to_dlpack(tensor)
    managed = api.PyCapsule_GetPointer(capsule, DLTENSOR)
    api.PyCapsule_SetName(capsule, USED)
    return managed


run("""package.path = "lua/?.lua;" .. package.path
samebits, dlpack = require "samebits", require "samebits.dlpack" """)

for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.uint8,
              torch.int16, torch.int32, torch.int64, torch.bool):
    x = torch.arange(24).reshape(2, 3, 4).to(dtype).transpose(0, 2)[1:]
    run("t = dlpack.import(...)", give(x))
    # Into Lua, and the same memory back.
    managed = int(run("m = dlpack.export(t); return tonumber(require'ffi'.cast('intptr_t', m))"))
    back = dlpack.from_dlpack(api.PyCapsule_New(managed, DLTENSOR, None))
    assert back.dtype == dtype and back.shape == x.shape and back.stride() == x.stride()
    assert back.data_ptr() == x.data_ptr() and torch.equal(back, x)
    assert run("return dlpack.exported()") == 1
    del back
    gc.collect()
    assert run("m = nil return dlpack.exported()") == 0

# The memory lives as long as either side has it.
logits = torch.randn(5, 40)
ids = torch.arange(5)
alive = weakref.ref(logits.untyped_storage())
run("logits = dlpack.import(...)", give(logits))
run("ids = dlpack.import(...)", give(ids))
want = torch.log_softmax(logits.double(), -1).gather(-1, ids.unsqueeze(-1)).squeeze(-1)
del logits, ids
gc.collect()
managed = int(run("""local out = samebits.logprob { logits = logits, ids = ids }
return tonumber(require'ffi'.cast('intptr_t', dlpack.export(out.token)))"""))
got = dlpack.from_dlpack(api.PyCapsule_New(managed, DLTENSOR, None))
torch.testing.assert_close(got.double(), want, rtol=1e-6, atol=1e-6)
run("logits, ids = nil, nil collectgarbage() collectgarbage()")
kept = got.clone()
run("collectgarbage() collectgarbage()")
assert torch.equal(got, kept)
del got
gc.collect()
assert run("return dlpack.exported()") == 0
print("fine")
