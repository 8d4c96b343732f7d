function "s" {
  params = [value]
  result = jsonencode(value)
}
target "default" {
  args = {
    pow = pow(2, 0.5)
    log = log(16, 2)
    add = add(0.1, 0.2)
    min = min(1, 2, -3)
    range = s(range(3))
    range2 = s(range(1, 2, 0.5))
    range3 = s(range(3, 0))
    parse = s(parseint("ff", 16))
    parse62 = s(parseint("Z", 62))
    div = s(10/4)
    eq = s("1" == 1)
    eql = s([1] == [1])
    eqlt = s(range(2) == [0,1])
    neg = s(-5 % 3)
    lendiv = length([1])/length([1,2,3])
    int = s(int(-3.7))
    absolute = absolute(-3.5)
    ceil = s([ceil(1.1), ceil(-1.1)])
    floor = s([floor(1.9), floor(-1.1)])
    max = max(1, 5.5, 3)
    modulo = modulo(10, 4)
    multiply = multiply(2.5, 2)
    negate = negate(5)
    signum = s([signum(-2), signum(0), signum(7)])
    subtract = subtract(1, 3)
    divide = divide(7, 2)
    cmp = s([greaterthan(1,2), greaterthanorequalto(2,2), lessthan(1,2), lessthanorequalto(3,2), equal("a","a"), notequal(1,1)])
    logic = s([and(true,false), or(true,false), not(true)])
    parsebin = s(parseint("-101", 2))
    powers = s([pow(2,10), pow(10,-2)])
    logs = log(100, 10)
  }
}
