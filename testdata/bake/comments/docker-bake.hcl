target "default" { 
  /* x */ tags /* y */ = /* z */ [ /* w */ "a" /* v */, # end
  // slash
  "b" ] // done
}
