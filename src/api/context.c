/* context.c - finding, opening and closing backends: the public functions that create, close or
 * describe a context. Functions that do work in a context enter it first: see entry.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/call.h"
#include "api/entry.h"

const char *sb_backend_name(int32_t index)
{
    int32_t i;
    if (index < 0) return NULL;
    for (i = 0; i < index && sb_backends[i]; i++) {
    }
    return sb_backends[i] ? sb_backends[i]->name : NULL;
}

/* "cuda" is device 0 of cuda, "cuda:1" its device 1. Null for other names. */
static const sb_backend *backend_named(const char *name, int *device)
{
    for (int i = 0; sb_backends[i]; i++) {
        size_t length = strlen(sb_backends[i]->name);
        *device = 0;
        if (strncmp(sb_backends[i]->name, name, length) != 0) continue;
        if (name[length] == '\0') return sb_backends[i];
        if (name[length] == ':' && sb_backends[i]->device && name[length + 1] != '\0' &&
            strspn(name + length + 1, "0123456789") == strlen(name + length + 1) &&
            strlen(name + length + 1) < 6) {
            *device = atoi(name + length + 1);
            return sb_backends[i];
        }
    }
    return NULL;
}

static sb_status no_such_backend(const char *name, sb_message *why)
{
    char known[128] = "";
    for (int i = 0; sb_backends[i]; i++) {
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", sb_backends[i]->name);
    }
    return sb_fail(why, SB_ERR_BACKEND, "no backend is called \"%.40s\"; known: %s, or auto", name,
                   known);
}

/* Copies the message into the caller's buffer. */
static sb_status answer(sb_status status, const sb_message *message, char *why, size_t why_size)
{
    if (why && why_size) snprintf(why, why_size, "%s", status == SB_OK ? "" : message->text);
    return status;
}

static sb_status probe(const char *name, sb_message *why)
{
    const sb_backend *backend;
    int device;
    if (!name) return sb_fail(why, SB_ERR_ARGUMENT, "backend is null");
    backend = backend_named(name, &device);
    return backend ? backend->probe(device, why) : no_such_backend(name, why);
}

sb_status sb_probe(const char *backend, char *why, size_t why_size)
{
    sb_message message = { "" };
    sb_shield shield;
    sb_status status;
    sb_shield_raise(&shield);
    status = answer(probe(backend, &message), &message, why, why_size);
    sb_shield_lower(&shield);
    return status;
}

/* Only host backends have instruction sets. */
static int named_isa(const sb_open_options *options)
{
    return options->isa && strcmp(options->isa, "auto") != 0;
}

static sb_status open_checked(sb_context **ctx, uint32_t abi, const char *name,
                              const sb_open_options *options, sb_message *why)
{
    const sb_open_options defaults = SB_OPEN_OPTIONS_INIT;
    const sb_backend *backend;
    sb_context *made;
    sb_status status;
    int device = 0;

    if (abi != SB_ABI)
        return sb_fail(why, SB_ERR_ABI, "the caller was built for ABI %u, the library has ABI %u",
                       (unsigned)abi, (unsigned)SB_ABI);
    if (!name) return sb_fail(why, SB_ERR_ARGUMENT, "backend is null");
    if (!options) options = &defaults;
    status = sb_check_size(options, sizeof *options, "sb_open_options", "SB_OPEN_OPTIONS_INIT",
                           why);
    if (status != SB_OK) return status;

    if (strcmp(name, "auto") == 0) {
        int i = 0;
        while (sb_backends[i] && ((named_isa(options) && sb_backends[i]->device) ||
                                  sb_backends[i]->probe(0, why) != SB_OK))
            i++;
        backend = sb_backends[i];
        if (!backend) return sb_fail(why, SB_ERR_BACKEND, "no backend is available");
    } else {
        backend = backend_named(name, &device);
        if (!backend) return no_such_backend(name, why);
        if (named_isa(options) && backend->device)
            return sb_fail(why, SB_ERR_ARGUMENT, "the %s backend has no isa \"%.40s\"",
                           backend->name, options->isa);
        status = backend->probe(device, why);
        if (status != SB_OK) return status;
    }

    made = calloc(1, sizeof *made);
    if (!made) return sb_fail(why, SB_ERR_MEMORY, "no memory for a context");
    made->backend = backend;
    made->device = device;
    status = sb_gate_open(made, why);
    if (status == SB_OK) status = backend->open(made, device, options, why);
    if (status != SB_OK) {
        free(made);
        return status;
    }
    *ctx = made;
    return SB_OK;
}

sb_status sb_open(sb_context **ctx, uint32_t abi, const char *backend,
                  const sb_open_options *options, char *why, size_t why_size)
{
    sb_message message = { "" };
    sb_shield shield;
    sb_status status;
    sb_shield_raise(&shield);
    if (!ctx) {
        status = sb_fail(&message, SB_ERR_ARGUMENT, "ctx is null");
    } else {
        *ctx = NULL;
        status = open_checked(ctx, abi, backend, options, &message);
    }
    answer(status, &message, why, why_size);
    sb_shield_lower(&shield);
    return status;
}

void sb_close(sb_context *ctx)
{
    if (ctx) sb_gate_close(ctx);
}

/* These functions read only members that never change, so they need not enter the context. */
const char *sb_context_backend(const sb_context *ctx) { return ctx ? ctx->backend->name : ""; }
const char *sb_context_isa(const sb_context *ctx) { return ctx ? ctx->backend->isa(ctx) : ""; }
int32_t sb_context_threads(const sb_context *ctx) { return ctx ? ctx->backend->threads(ctx) : 0; }

const char *sb_last_error(const sb_context *ctx)
{
    return ctx ? sb_gate_text(ctx, ctx->error.text) : "ctx is null";
}
