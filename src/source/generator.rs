use super::*;
pub struct GeneratorConfig { pub rows_per_second: f64, pub rows: u64, pub seed: u64, pub columns: Vec<(String, String)> }
#[derive(Debug)] pub struct GeneratorSource;
impl GeneratorSource { pub fn try_new(_:String,_:GeneratorConfig)->Result<Self>{Ok(Self)} }
impl Display for GeneratorSource { fn fmt(&self,_:&mut std::fmt::Formatter)->std::fmt::Result{Ok(())} }
impl Source for GeneratorSource { fn schema(&self)->SchemaRef{unimplemented!()} fn is_bounded(&self)->bool{false} fn starts(&self)->&'static [Start]{&[]} fn open(&self,_:Start,_:&[usize])->Result<SendableRecordBatchStream>{unimplemented!()} }
