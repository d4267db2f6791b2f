use tracer_user::capture::*;
use tracer_core::ports::PortMap;
#[tokio::main(flavor="current_thread")]
async fn main(){
  let t=std::time::Instant::now();
  let mut c=match Capture::start(&Settings{ring_bytes:1<<20,map_entries:65536,netns:0,btf:VMLINUX_BTF.into()},&PortMap::default()){Ok(c)=>c,Err(e)=>{println!("{e}");return}};
  println!("{:?} {:#?}",t.elapsed(),c.probes());
  c.spawn_log_reader().unwrap();
  let mut r=c.take_ring().unwrap();
  for _ in 0..20 { tokio::select!{_=r.readable()=>{}, _=tokio::time::sleep(std::time::Duration::from_millis(500))=>{}}; r.drain(1000,|e|println!("{e:?}")); }
  println!("{:?}",c.counters());
  println!("{}",std::fs::read_to_string("/proc/self/smaps_rollup").unwrap());
}
