/* reader.c - the Lua readers of .npy and .safetensors files, as a libFuzzer target: FORMAT names
 * one of the two, for spec/fuzz/reader.lua. Runs in the root of the checkout.
 *
 * libFuzzer is guided by counters in compiled code. Interpreted Lua has none, so a hook counts each
 * step from one line to the next, and libFuzzer is told of these counters, too. */
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <lauxlib.h>
#include <lua.h>
#include <luajit.h>
#include <lualib.h>

#include "target.h"

#ifndef FORMAT
#error "FORMAT is npy or safetensors"
#endif
#define TEXT_OF(name) #name
#define TEXT(name) TEXT_OF(name)

enum { COUNTERS = 1 << 14 };

__attribute__((section("__libfuzzer_extra_counters"))) static uint8_t counters[COUNTERS];

static uint32_t line_before;

static void count_line(lua_State *L, lua_Debug *at)
{
    uint32_t hash = 2166136261u;
    uint8_t *counter;
    lua_getinfo(L, "S", at);
    for (const char *c = at->short_src; *c; c++) hash = (hash ^ (uint8_t)*c) * 16777619u;
    hash = (hash ^ (uint32_t)at->currentline) * 16777619u;
    counter = &counters[(hash ^ line_before >> 1) % COUNTERS];
    if (*counter < 255) ++*counter;
    line_before = hash;
}

/* Runs what is on the stack below its arguments. */
static void call(lua_State *L, int arguments)
{
    HOLDS(lua_pcall(L, arguments, 1, 0) == 0, "%s", lua_tostring(L, -1));
}

static lua_State *start(void)
{
    lua_State *L = luaL_newstate();
    HOLDS(L, "LuaJIT starts");
    luaL_openlibs(L);
    luaJIT_setmode(L, 0, LUAJIT_MODE_ENGINE | LUAJIT_MODE_OFF); /* compiled Lua calls no hooks */
    HOLDS(luaL_loadstring(L, "package.path = './lua/?.lua;./?.lua;' .. package.path\n"
                             "return require('spec.fuzz.reader').try") == 0,
          "%s", lua_tostring(L, -1));
    call(L, 0);
    lua_sethook(L, count_line, LUA_MASKLINE, 0);
    return L;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static lua_State *L;
    char path[64];
    int file = memfd_create("fuzz", 0);

    HOLDS(file >= 0 && write(file, data, size) == (ssize_t)size, "a file of %zu bytes", size);
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    if (!L) L = start();
    line_before = 0;
    lua_pushvalue(L, -1);
    lua_pushstring(L, TEXT(FORMAT));
    lua_pushstring(L, path);
    lua_pushnumber(L, (lua_Number)size);
    call(L, 3);
    lua_pop(L, 1);
    close(file);
    return 0;
}
