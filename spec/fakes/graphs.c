/* graphs.c - captures and graphs. One capture at a time. */
#include "graphs.h"

#include "queues.h"

#include <stdlib.h>
#include <string.h>

enum { INVALID = 1, NO_MEMORY = 2, UNSUPPORTED = 900, INVALIDATED = 901, IMPLICIT = 906 };
enum { RELAXED = 2 }; /* CU_STREAM_CAPTURE_MODE_RELAXED */

typedef struct node {
    struct node *next;
    graph_work work;
    size_t bytes;
    _Alignas(16) char arguments[];
} node;

typedef struct graph {
    node *first, **last;
    int spoilt;
} graph;

static CUstream capturing;
static graph *made;       /* null: no capture is under way */
static uint64_t captures; /* begun so far: the number of the one under way */

static _Thread_local int mode; /* CU_STREAM_CAPTURE_MODE_GLOBAL */

CUresult cuThreadExchangeStreamCaptureMode(int *its)
{
    const int before = mode;
    if (*its < 0 || *its > RELAXED) return INVALID;
    mode = *its;
    *its = before;
    return CUDA_SUCCESS;
}

static CUresult spoil(void)
{
    made->spoilt = 1;
    return UNSUPPORTED;
}

CUresult graph_forbids(void) { return made && mode != RELAXED ? spoil() : CUDA_SUCCESS; }

/* Whether a stream is the default one and may not be used. */
static int is_implied(CUstream stream) { return made && !stream && stream_blocks(capturing); }

CUresult graph_forbids_waiting(CUstream stream)
{
    return made && (stream == capturing || is_implied(stream)) ? spoil() : graph_forbids();
}

CUresult graph_do(CUstream stream, graph_work work, const void *arguments, size_t bytes)
{
    node *n;
    if (!made) return queue_do(stream, work, arguments, bytes);
    if (is_implied(stream)) return spoil();
    if (stream != capturing)
        return graph_forbids() ? graph_forbids() : queue_do(stream, work, arguments, bytes);
    n = malloc(sizeof *n + bytes);
    if (!n) return NO_MEMORY;
    n->next = NULL;
    n->work = work;
    n->bytes = bytes;
    memcpy(n->arguments, arguments, bytes);
    *made->last = n;
    made->last = &n->next;
    return CUDA_SUCCESS;
}

CUresult cuStreamBeginCapture_v2(CUstream stream, int mode)
{
    (void)mode;
    if (made || !stream) return INVALID;
    made = calloc(1, sizeof *made);
    if (!made) return NO_MEMORY;
    made->last = &made->first;
    capturing = stream;
    captures++;
    return CUDA_SUCCESS;
}

CUresult cuStreamGetCaptureInfo_v2(CUstream stream, int *status, uint64_t *number, void *its_graph,
                                   void *dependencies, size_t *count)
{
    (void)its_graph, (void)dependencies, (void)count;
    if (is_implied(stream)) return IMPLICIT;
    *status = !made || stream != capturing ? 0 : made->spoilt ? 2 : 1;
    *number = captures;
    return CUDA_SUCCESS;
}

CUresult cuGraphDestroy(graph *g)
{
    for (node *n = g->first, *next; n; n = next) {
        next = n->next;
        free(n);
    }
    free(g);
    return CUDA_SUCCESS;
}

CUresult cuStreamEndCapture(CUstream stream, graph **g)
{
    graph *it = made;
    if (!it || stream != capturing) return INVALID;
    made = NULL;
    *g = NULL;
    if (it->spoilt) {
        cuGraphDestroy(it);
        return INVALIDATED;
    }
    *g = it;
    return CUDA_SUCCESS;
}

CUresult cuGraphGetNodes(graph *g, void **nodes, size_t *count)
{
    if (nodes) return INVALID;
    *count = 0;
    for (const node *n = g->first; n; n = n->next) ++*count;
    return CUDA_SUCCESS;
}

/* What can be launched: the graph's nodes, taken over. */
CUresult cuGraphInstantiateWithFlags(graph **exec, graph *g, unsigned long long flags)
{
    (void)flags;
    *exec = calloc(1, sizeof **exec);
    if (!*exec) return NO_MEMORY;
    (*exec)->first = g->first;
    g->first = NULL;
    g->last = &g->first;
    return CUDA_SUCCESS;
}

CUresult cuGraphLaunch(graph *exec, CUstream stream)
{
    if (made && stream == capturing) return INVALID;
    if (graph_forbids()) return graph_forbids();
    for (const node *n = exec->first; n; n = n->next) {
        CUresult result = queue_do(stream, n->work, n->arguments, n->bytes);
        if (result != CUDA_SUCCESS) return result;
    }
    return CUDA_SUCCESS;
}

CUresult cuGraphExecDestroy(graph *exec) { return cuGraphDestroy(exec); }
