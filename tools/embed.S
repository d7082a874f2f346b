/* embed.S - embeds the file FILE as data. The symbol NAME stands for its bytes, and NAME_size, a
 * uint64_t, for their number. */
#define JOIN(a, b) a##b
#define SIZE(a) JOIN(a, _size)
        .section .rodata
        .balign 64
        .globl NAME
        .hidden NAME
        .type NAME, @object
NAME:   .incbin FILE
1:      .size NAME, 1b - NAME
        .balign 8
        .globl SIZE(NAME)
        .hidden SIZE(NAME)
        .type SIZE(NAME), @object
SIZE(NAME):
        .quad 1b - NAME
        .size SIZE(NAME), 8
        .section .note.GNU-stack,"",@progbits
