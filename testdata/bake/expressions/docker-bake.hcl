list   = ["a", "b", "c"]
map    = { one = 1, two = { three = [3, 4] }, "key with space" = "s" }
null1  = null
target "default" {
  args = {
    arithmetic  = 1 + 2 * 3 - 4 / 2
    modulo      = -7 % 3
    third       = 1 / 3
    decimals    = 0.1 + 0.2
    big         = 12345678901234567890123 * 10
    compare     = 1 < 2 && 2 >= 2 || false
    not         = !false
    equal       = "1" == 1
    conditional = 1 > 2 ? "x" : 5
    index       = list[1]
    legacy      = list.2
    member      = map.two.three[0]
    bracket     = map["key with space"]
    splat       = join(",", [{ n = 1 }, { n = 2 }].*.n)
    fullsplat   = jsonencode([{ n = [1, 2] }, { n = [3] }][*].n[0])
    single      = jsonencode(map.two[*].three)
    nullsplat   = jsonencode(null1[*])
    for         = jsonencode([for i, v in list : "${i}${v}" if v != "b"])
    forobject   = jsonencode({ for k, v in map : upper(k) => k })
    forgroup    = jsonencode({ for v in ["ab", "ac", "bd"] : substr(v, 0, 1) => v... })
    escape      = "a\tb\"c\\d\u00e9 $${x} %%{if}"
    paren       = (1 + 2) * 3
    negate      = -(1)
    try         = try(map.missing, list[9], "fallback")
    can         = can(map.missing)
    exp         = 1.5e3
    nested      = "${"in ${"ner"}"}"
    cond_types  = jsonencode(true ? ["a"] : ["b", "c"])
    cond_object = jsonencode(false ? { a = 1 } : { a = "x" })
    cond_null   = jsonencode(true ? null1 : "x")
  }
}
