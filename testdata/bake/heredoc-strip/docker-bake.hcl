x = { a = 1, b = 2 }
target "default" { labels = {
 a = <<EOT
one
   %{~ for k, v in x ~}
   ${k}=${v}
   %{~ endfor ~}
two
EOT
 b = <<EOT
start ${~ "x" ~}

   next
${"y" ~}
   end
EOT
 c = <<-EOT
     four
   three
       seven ${1}
     %{ if true }
     yes
     %{ endif }
   EOT
 d = <<-EOT

     blank first

   last
   EOT
 e = "%{ for i in [1,2,3] ~}  ${i}  %{~ endfor }"
} }
