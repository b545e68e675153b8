use super::*; use crate::format::*;
#[derive(Debug)] pub struct FileSource;
impl FileSource { pub fn try_new(_:String,_:std::path::PathBuf,_:FileFormat,_:Option<SchemaRef>,_:OnMalformed)->Result<Self>{Ok(Self)} }
impl Display for FileSource { fn fmt(&self,_:&mut std::fmt::Formatter)->std::fmt::Result{Ok(())} }
impl Source for FileSource { fn schema(&self)->SchemaRef{unimplemented!()} fn is_bounded(&self)->bool{true} fn starts(&self)->&'static [Start]{&[]} fn open(&self,_:Start,_:&[usize])->Result<SendableRecordBatchStream>{unimplemented!()} }
