/*
 * pre_tokenizer_patterns.h: the patterns that pre_tokenizers.inc names; private to pre_tokenizer.c.
 *
 * The patterns are those that the models were trained with, as the reference runs them, written so that PCRE2 gives the
 * same words in linear time and constant memory: only single characters and classes repeat, and a group only where
 * nothing of it is ever given back. White space is spelled out: PCRE2's \s differs by option (and has U+180E, which is
 * none), this list does not. Categories are those of Unicode 15.1 also with a PCRE2 that knows 14 only (before 10.43):
 * what came later is listed, but in classes that are written by what they leave out.
 */
#ifndef PI2_TOKENIZER_PRE_TOKENIZER_PATTERNS_H
#define PI2_TOKENIZER_PRE_TOKENIZER_PATTERNS_H

#define SPACE                                                                                    \
    "\\t-\\r \\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}"              \
    "\\x{205F}\\x{3000}"
/* For use inside a class: the category, and what Unicode 15.0 and 15.1 added to it. */
#define LETTER                                                                                   \
    "\\p{L}\\x{1123F}\\x{11240}\\x{11F02}\\x{11F04}-\\x{11F10}\\x{11F12}-\\x{11F33}"             \
    "\\x{1342F}\\x{13441}-\\x{13446}\\x{1B132}\\x{1B155}\\x{1DF25}-\\x{1DF2A}"                   \
    "\\x{1E030}-\\x{1E06D}\\x{1E4D0}-\\x{1E4EB}\\x{2B739}\\x{2EBF0}-\\x{2EE5D}"                  \
    "\\x{31350}-\\x{323AF}"
#define NUMBER "\\p{N}\\x{11F50}-\\x{11F59}\\x{1D2C0}-\\x{1D2D3}\\x{1E4F0}-\\x{1E4F9}"
#define MARK                                                                                     \
    "\\p{M}\\x{CF3}\\x{ECE}\\x{10EFD}-\\x{10EFF}\\x{11241}\\x{11F00}\\x{11F01}\\x{11F03}"        \
    "\\x{11F34}-\\x{11F3A}\\x{11F3E}-\\x{11F42}\\x{13440}\\x{13447}-\\x{13455}\\x{1E08F}"        \
    "\\x{1E4EC}-\\x{1E4EF}"
#define PUNCTUATION "\\p{P}\\x{11B00}-\\x{11B09}\\x{11F43}-\\x{11F4F}"
#define SYMBOL                                                                                   \
    "\\p{S}\\x{2FFC}-\\x{2FFF}\\x{31EF}\\x{1F6DC}\\x{1F774}-\\x{1F776}"                          \
    "\\x{1F77B}-\\x{1F77F}\\x{1F7D9}\\x{1FA75}-\\x{1FA77}\\x{1FA87}\\x{1FA88}"                   \
    "\\x{1FAAD}-\\x{1FAAF}\\x{1FABB}-\\x{1FABD}\\x{1FABF}\\x{1FACE}\\x{1FACF}\\x{1FADA}"         \
    "\\x{1FADB}\\x{1FAE8}\\x{1FAF7}\\x{1FAF8}"
#define SPACES "[" SPACE "]+"
/* White space before a word leaves its last character to that word. */
#define SPACES_BEFORE_WORD SPACES "(?![^" SPACE "])|" SPACES
#define LINE_ENDS "[" SPACE "]*[\\r\\n]+"
#define ENGLISH_ENDING "'(?:[sStTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])"
#define OTHERS " ?[^" SPACE LETTER NUMBER "]+"
/* Letters that are no small (capital) ASCII letters: what [Lu Lt Lm Lo] and [Ll Lm Lo] of the
 * original patterns became in the reference, whose tokens we match. */
#define CAPITALS "[^\\P{L}a-z]"
#define SMALLS "[^\\P{L}A-Z]"
#define BEFORE_WORD "[^\\r\\n" LETTER NUMBER "]?"
#define LETTERS "[" LETTER "]+"
#define ONE_NUMBER "[" NUMBER "]"

#define PATTERN_GPT2                                                                             \
    "'(?:[stmd]|re|ve|ll)| ?" LETTERS "| ?" ONE_NUMBER "+|" OTHERS "|" SPACES_BEFORE_WORD
#define PATTERN_NUMBER ONE_NUMBER
#define PATTERN_NUMBERS ONE_NUMBER "+"
#define PATTERN_3_NUMBERS ONE_NUMBER "{1,3}"
#define PATTERN_3_DIGITS "[0-9][0-9][0-9]"
#define PATTERN_PUNCTUATION "[$+<=>^~|" PUNCTUATION "]+"
#define PATTERN_FALCON_PUNCTUATION "[$+<=>^~|`" PUNCTUATION "]+"
#define PATTERN_WORDS(number)                                                                    \
    ENGLISH_ENDING "|" BEFORE_WORD LETTERS "|" number "|" OTHERS "[\\r\\n]*|" LINE_ENDS          \
    "|" SPACES_BEFORE_WORD
#define PATTERN_LLAMA3 PATTERN_WORDS(PATTERN_3_NUMBERS)
#define PATTERN_QWEN2 PATTERN_WORDS(ONE_NUMBER)
#define PATTERN_QWEN35                                                                           \
    ENGLISH_ENDING "|" BEFORE_WORD "[" MARK LETTER "]+|" ONE_NUMBER "| ?[^" MARK SPACE           \
    LETTER NUMBER "]+[\\r\\n]*|" LINE_ENDS "|" SPACES_BEFORE_WORD
#define PATTERN_TEKKEN                                                                           \
    BEFORE_WORD CAPITALS "*" SMALLS "+|" BEFORE_WORD CAPITALS "+" SMALLS "*|" ONE_NUMBER "|"     \
    OTHERS "[\\r\\n/]*|" LINE_ENDS "|" SPACES_BEFORE_WORD
#define PATTERN_GPT4O                                                                            \
    BEFORE_WORD CAPITALS "*" SMALLS "+(?:" ENGLISH_ENDING ")?|"                                  \
    BEFORE_WORD CAPITALS "+" SMALLS "*(?:" ENGLISH_ENDING ")?|" PATTERN_3_NUMBERS "|"            \
    OTHERS "[\\r\\n/]*|" LINE_ENDS "|" SPACES_BEFORE_WORD
#define PATTERN_LINE_END "[\\r\\n]"
#define PATTERN_SPACE_LETTERS "[" SPACE "]?" LETTERS
#define PATTERN_SPACE_PUNCTUATION "[" SPACE "]?[" PUNCTUATION "]+"
/* U+0800 to U+9FA5 without its white space, and Hangul. */
#define PATTERN_DEEPSEEK_CJK                                                                     \
    "[\\x{800}-\\x{167F}\\x{1681}-\\x{1FFF}\\x{200B}-\\x{2027}\\x{202A}-\\x{202E}"               \
    "\\x{2030}-\\x{205E}\\x{2060}-\\x{2FFF}\\x{3001}-\\x{9FA5}\\x{AC00}-\\x{D7FF}]+"
/* The letters that DeepSeek's first models count as words: those with two cases. */
#define PATTERN_DEEPSEEK_LETTERS                                                                 \
    "[" SPACE "]?["                                                                              \
    "A-Za-z\\x{B5}\\x{C0}-\\x{D6}\\x{D8}-\\x{F6}\\x{F8}-\\x{1BA}\\x{1BC}-\\x{1BF}"               \
    "\\x{1C4}-\\x{293}\\x{295}-\\x{2AF}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37B}-\\x{37D}"       \
    "\\x{37F}\\x{386}\\x{388}-\\x{38A}\\x{38C}\\x{38E}-\\x{3A1}\\x{3A3}-\\x{3F5}"                \
    "\\x{3F7}-\\x{481}\\x{48A}-\\x{52F}\\x{531}-\\x{556}\\x{10A0}-\\x{10C5}"                     \
    "\\x{13A0}-\\x{13F5}\\x{13F8}-\\x{13FD}\\x{1C90}-\\x{1CBA}\\x{1CBD}-\\x{1CBF}"               \
    "\\x{1D00}-\\x{1D2B}\\x{1D6B}-\\x{1D77}\\x{1D79}-\\x{1D9A}\\x{1E00}-\\x{1F15}"               \
    "\\x{1F18}-\\x{1F1D}\\x{1F20}-\\x{1F45}\\x{1F48}-\\x{1F4D}\\x{1F50}-\\x{1F57}\\x{1F59}"      \
    "\\x{1F5B}\\x{1F5D}\\x{1F5F}-\\x{1F7D}\\x{1F80}-\\x{1FB4}\\x{1FB6}-\\x{1FBC}\\x{1FBE}"       \
    "\\x{1FC2}-\\x{1FC4}\\x{1FC6}-\\x{1FCC}\\x{1FD0}-\\x{1FD3}\\x{1FD6}-\\x{1FDB}"               \
    "\\x{1FE0}-\\x{1FEC}\\x{1FF2}-\\x{1FF4}\\x{1FF6}-\\x{1FFC}\\x{2102}\\x{2107}"                \
    "\\x{210A}-\\x{2113}\\x{2115}\\x{2119}-\\x{211D}\\x{2124}\\x{2126}\\x{2128}"                 \
    "\\x{212A}-\\x{212D}\\x{212F}-\\x{2134}\\x{2139}\\x{213C}-\\x{213F}\\x{2145}-\\x{2149}"      \
    "\\x{214E}\\x{2183}\\x{2184}\\x{2C00}-\\x{2C7B}\\x{2C7E}-\\x{2CE4}\\x{2CEB}-\\x{2CEE}"       \
    "\\x{2CF2}\\x{2CF3}\\x{A640}-\\x{A66D}\\x{A680}-\\x{A69B}\\x{A722}-\\x{A76F}"                \
    "\\x{A771}-\\x{A787}\\x{A78B}-\\x{A78E}\\x{AB70}-\\x{ABBF}\\x{FB00}-\\x{FB06}"               \
    "\\x{FB13}-\\x{FB17}\\x{FF21}-\\x{FF3A}\\x{FF41}-\\x{FF5A}\\x{10400}-\\x{1044F}"             \
    "\\x{104B0}-\\x{104D3}\\x{104D8}-\\x{104FB}\\x{10C80}-\\x{10CB2}\\x{10CC0}-\\x{10CF2}"       \
    "\\x{118A0}-\\x{118DF}\\x{1E900}-\\x{1E943}"                                                 \
    "]+"
/* The last of it is U+3001 and U+3002: U+3000, where that range began, is white space. */
#define PATTERN_DEEPSEEK_MARKS                                                                   \
    "[" SPACE "]?[!-/:-~\\x{FF01}-\\x{FF0F}\\x{FF1A}-\\x{FF5E}\\x{2018}-\\x{201F}"               \
    "\\x{3001}\\x{3002}]+"
/* A run of spaces at the end, looked at once, from its beginning. */
#define PATTERN_LAST_SPACES "(?<![" SPACE "])[" SPACE "]++\\z"
#define PATTERN_DEEPSEEK3_CJK "[\\x{4E00}-\\x{9FA5}\\x{3040}-\\x{30FF}]+"
#define PATTERN_DEEPSEEK3                                                                        \
    "[!-/:-@\\[-`{-~][A-Za-z]+|[^\\r\\n" PUNCTUATION SYMBOL LETTER "]?[" MARK LETTER "]+|"       \
    " ?[" PUNCTUATION SYMBOL "]+[\\r\\n]*|" LINE_ENDS "|" SPACES_BEFORE_WORD
#define PATTERN_SEED_CODER                                                                       \
    ENGLISH_ENDING "|" BEFORE_WORD LETTERS "|" ONE_NUMBER "|" OTHERS "|" LINE_ENDS "|"           \
    SPACES_BEFORE_WORD
#define PATTERN_BAILING                                                                          \
    ENGLISH_ENDING "|" BEFORE_WORD LETTERS "|" ONE_NUMBER "|" OTHERS "[\\r\\n]*|"                \
    "[" SPACE "]*[\\r\\n]|" SPACES_BEFORE_WORD
/* Letters and marks that are no small (capital) ASCII letters: all but the other categories. */
#define CAPITALS_OR_MARKS "[^\\p{Z}\\p{C}\\p{N}\\p{P}\\p{S}a-z]"
#define SMALLS_OR_MARKS "[^\\p{Z}\\p{C}\\p{N}\\p{P}\\p{S}A-Z]"
#define ENGLISH_ENDING_OR_NONE "(?:" ENGLISH_ENDING ")?"
#define PATTERN_GPT4O_MARKS                                                                      \
    BEFORE_WORD CAPITALS_OR_MARKS "*" SMALLS_OR_MARKS "+" ENGLISH_ENDING_OR_NONE "|"             \
    BEFORE_WORD CAPITALS_OR_MARKS "+" SMALLS_OR_MARKS "*" ENGLISH_ENDING_OR_NONE "|"             \
    PATTERN_3_NUMBERS "|" OTHERS "[\\r\\n/]*|" LINE_ENDS "|" SPACES_BEFORE_WORD
/* Where the reference takes capital and small letters for the same, and marks for letters. */
#define PATTERN_MARKED_WORDS(number)                                                             \
    BEFORE_WORD "[" MARK LETTER "]+" ENGLISH_ENDING_OR_NONE "|" number "|" OTHERS "[\\r\\n/]*|"  \
    LINE_ENDS "|" SPACES_BEFORE_WORD
#define PATTERN_WORDS_WITHOUT_ENDINGS                                                            \
    BEFORE_WORD LETTERS "|" ONE_NUMBER "|" OTHERS "[\\r\\n]*|" LINE_ENDS "|" SPACES_BEFORE_WORD
/* Words with their marks and the joiners of Indic scripts. */
#define PATTERN_K2_HORIZON                                                                       \
    ENGLISH_ENDING "|" BEFORE_WORD "[" MARK LETTER "\\x{200C}\\x{200D}]+|" PATTERN_3_NUMBERS "|" \
    OTHERS "[\\r\\n]*|" LINE_ENDS "|" SPACES_BEFORE_WORD
/* Words with single spaces between are one. */
#define PATTERN_EXAONE_MOE                                                                       \
    ENGLISH_ENDING "|" BEFORE_WORD "[" LETTER "](?:[" MARK LETTER "]++| (?=[" LETTER "]))*+|"    \
    ONE_NUMBER "|" OTHERS "[\\r\\n/]?|[" SPACE "]*[\\r\\n]|" SPACES_BEFORE_WORD
#define HAN                                                                                      \
    "\\x{3400}-\\x{4DBF}\\x{4E00}-\\x{9FFF}\\x{F900}-\\x{FAFF}\\x{20000}-\\x{2A6DF}"           \
    "\\x{2A700}-\\x{2EBEF}\\x{2F800}-\\x{2FA1F}"
#define PATTERN_KIMI                                                                             \
    "[" HAN "]+|" BEFORE_WORD "[^\\P{L}" HAN "]+" ENGLISH_ENDING_OR_NONE "|" PATTERN_3_NUMBERS   \
    "|" OTHERS "[\\r\\n]*|" LINE_ENDS "|" SPACES_BEFORE_WORD
#define SPACES_OF(count) "[" SPACE "]{" count "}(?![^" SPACE "])|"
#define PATTERN_JAIS2                                                                            \
    ENGLISH_ENDING "|" BEFORE_WORD LETTERS "|" PATTERN_3_NUMBERS "|" OTHERS "[\\r\\n]*|"         \
    LINE_ENDS "|" SPACES_OF("512") SPACES_OF("256") SPACES_OF("128") SPACES_OF("64")             \
    SPACES_OF("32") SPACES_OF("16") SPACES_OF("8") SPACES_OF("4") SPACES_OF("1,2") "[" SPACE "]"
#define PATTERN_SPARK                                                                            \
    "[!-/:-@\\[-`{-~][A-Za-z]+|[^\\r\\n" PUNCTUATION SYMBOL LETTER "]?[" MARK LETTER "]+|"       \
    " ?[" PUNCTUATION SYMBOL "]+|[\\r\\n]|" SPACES_BEFORE_WORD
#define PATTERN_SENTINEL "<sentinel:[0-9]+>"
#define PATTERN_IMAGE "IMGIMG[A-I]{1,4}Z"
#define PATTERN_INDENT "[\\t\\n]|    |  "
#define PATTERN_ONE_PUNCTUATION "[!-/:-@\\[-`{-~" PUNCTUATION "]"
#define PATTERN_YOUTU_SCRIPTS                                                                    \
    "[\\x{AC00}-\\x{D7A3}\\x{3131}-\\x{318E}]+|"                                               \
    "[\\x{FF01}\\x{2026}\\x{201C}\\x{201D}\\x{2018}\\x{2019}\\x{2014}\\x{FF1A}\\x{FF1B}\\x{FF0C}" \
    "\\x{3001}-\\x{303F}\\x{FE30}-\\x{FE4F}]+|[\\x{3105}-\\x{312F}]+|"                         \
    "[\\x{4E00}-\\x{9FA5}\\x{3040}-\\x{30FF}]+"
/* U+8C48 to U+FAFF as the reference has it, where U+F900 was meant: the two look the same. */
#define PATTERN_ASIAN                                                                            \
    "[\\x{3400}-\\x{4DBF}\\x{4E00}-\\x{FAFF}\\x{3040}-\\x{30FF}\\x{FF65}-\\x{FF9F}"            \
    "\\x{2F00}-\\x{2FDF}\\x{E40}-\\x{EFF}\\x{1780}-\\x{17FF}\\x{1000}-\\x{109F}"               \
    "\\x{1100}-\\x{11FF}]+"
#define PATTERN_LINE_END_RUNS "\\n+"
#define PATTERN_SPACE_FIRST "[ \\x{2581}][^ \\x{2581}]*"
#define PATTERN_NO_SPACES "[^" SPACE "]+"
/* What such a pattern matches is cut into threes from its right: 1 234 567. In the reference the first of them belongs
 * to the piece before it (later patterns cut them apart, but see no end of text between): JOINED. */
#define THREES_FROM_RIGHT "\1"
#define JOINED_THREES_FROM_RIGHT "\2"
#define PATTERN_NUMBER_THREES JOINED_THREES_FROM_RIGHT ONE_NUMBER "+"
#define PATTERN_DIGIT_THREES THREES_FROM_RIGHT "[0-9]+"
#define PATTERN_BLOOM                                                                            \
    " ?[^(|.,!?)" SPACE "\\x{2026}\\x{3002}\\x{FF0C}\\x{3001}\\x{964}\\x{6D4}\\x{60C}]+"

#endif
