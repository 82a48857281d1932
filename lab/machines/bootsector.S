# The lab's guest: 512 bytes that write to the machine's disks for ever, without an operating system.
#
# For counter = 1, 2, 3 ...: for each BIOS drive from 0x80 on: write one sector that holds the pair (counter, tag) 64
# times to LBA base + (counter & mask). tag = magic + drive number - 0x80. So the right content of every sector follows
# from the largest counter that reached a disk: whatever is lost, torn, swapped or doubled is seen.
# Every (progress + 1) rounds a '.' goes to the first serial port; an 'E' for each write that the BIOS reports failed
# (it is tried again). After every `burst` rounds the guest halts until the next timer interrupt (int 15h AH=86h would be
# finer, but SeaBIOS burns most of a core while it waits); 0: it never halts.
#
# A guest that is started again goes on where it was: what the first drive holds tells the newest write.
#
# Build: as --32, ld -m elf_i386 -Ttext 0x7c00 --oformat binary. The parameters at the end are patched per machine.

.code16
.globl _start
_start:
    cli
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw $0x7c00, %sp
    sti
    cld

# The newest write on the first drive: sector s holds first + s up to it and less behind it, so halving finds it. It is
# written once more, because the other drives may not have got it.
    xorl %eax, %eax
    call read
    movl %eax, %ebp             # first = counter in sector 0
    xorl %esi, %esi             # the highest sector known to hold first + s
    movl mask, %edi
    incl %edi
halve:
    shrl $1, %edi
    jz found
    leal (%esi, %edi), %ebx
    movl %ebx, %eax
    call read
    subl %ebx, %eax
    cmpl %ebp, %eax
    jne halve
    movl %ebx, %esi
    jmp halve
found:
    addl %ebp, %esi
    jz round
    movl %esi, counter

round:
    movb burst, %al
    testb %al, %al
    jz fill
    decb left
    jnz fill
    movb %al, left
    hlt                         # until the next timer interrupt, 18.2 per second

fill:                           # 64 pairs (counter, tag) at 0x8000
    movw $0x8000, %di
    movw $64, %cx
    movzbl drive, %ebx
    subl $0x80, %ebx
    addl magic, %ebx
1:  movl counter, %eax
    stosl
    movl %ebx, %eax
    stosl
    loop 1b

    movl counter, %eax
    andl mask, %eax
    addl base, %eax
    movl %eax, lba
    movw $0x4300, %ax           # extended write, no verify
    movb drive, %dl
    movw $packet, %si
    int $0x13
    jc failed

    incb drive                  # next drive of this round
    movb drive, %al
    subb $0x80, %al
    cmpb drives, %al
    jb fill

    movb $0x80, drive           # round done
    movl counter, %eax
    incl counter
    testb %al, progress
    jnz round
    movb $'.', %al
    jmp say
failed:
    movb $'E', %al
say:
    movw $0x3f8, %dx
    outb %al, %dx
    jmp round

read:                           # sector %eax of the window on the first drive; its counter in %eax
    addl base, %eax
    movl %eax, lba
4:  pushal
    movw $0x4200, %ax
    movb $0x80, %dl
    movw $packet, %si
    int $0x13
    popal                       # leaves the carry flag
    jc 4b
    movl 0x8000, %eax
    ret

drive:   .byte 0x80
left:    .byte 1
.align 4
counter: .long 1
packet:  .byte 16, 0            # disk address packet of int 13h extensions
         .word 1                # sectors
         .word 0x8000, 0        # buffer, offset and segment
lba:     .long 0, 0

.org 440                        # parameters: lab/machines/writer.py knows this offset and the order
base:     .long 2048            # first sector of the window
mask:     .long 0x3fff          # sectors of the window - 1
magic:    .long 0               # the machine's number in every sector
drives:   .byte 1
progress: .byte 0xff
burst:    .byte 0

.org 510
.word 0xaa55
