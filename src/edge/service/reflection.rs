//! Server reflection, v1 and v1alpha: so that stock tools need no files.
//!
//! The two versions differ in their package's name alone and are served by the same code, with the messages
//! of v1.
//!
//! Invariants:
//! - A file comes with every file that it imports, directly or not, after it.
//! - What the edge does not answer is not listed.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;
use prost_types::{DescriptorProto, FileDescriptorProto};

use super::{Edge, encode};
use crate::edge::frame::{Messages, ReadError};
use crate::edge::method::{SERVICES, Services};
use crate::edge::reply::{Answers, Reply, Unsent};
use crate::edge::status::{Code, Status};
use crate::edge::store::Store;
use crate::edge::stream::{Guarded, guard};
use crate::env::{Env, Instant};
use crate::wire;
use crate::wire::reflection as v1;
use v1::server_reflection_request::MessageRequest;
use v1::server_reflection_response::MessageResponse;

/// A `FileDescriptorSet` whose files stay as they were encoded.
#[derive(Clone, PartialEq, prost::Message)]
struct EncodedFiles {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    files: Vec<Bytes>,
}

/// One file as it is sent, and what it imports.
struct File {
    encoded: Bytes,
    imports: Vec<String>,
}

/// Every file and symbol of the contract.
pub(in crate::edge) struct Reflection {
    services: Services,
    files: BTreeMap<String, File>,
    /// The file of every message, enum, service and method, by full name.
    symbols: BTreeMap<String, String>,
}

impl Reflection {
    pub(in crate::edge) fn new(services: Services) -> Self {
        let mut reflection = Self { services, files: BTreeMap::new(), symbols: BTreeMap::new() };
        let set = EncodedFiles::decode(wire::DESCRIPTORS).expect("the build script encoded it");
        for encoded in set.files {
            let file = FileDescriptorProto::decode(encoded.clone()).expect("the build script encoded it");
            reflection.add(&file, encoded);
        }
        reflection
    }

    fn add(&mut self, file: &FileDescriptorProto, encoded: Bytes) {
        let name = file.name().to_owned();
        for message in &file.message_type {
            self.add_message(&name, file.package(), message);
        }
        for kind in &file.enum_type {
            self.symbols.insert(format!("{}.{}", file.package(), kind.name()), name.clone());
        }
        for service in &file.service {
            let full = format!("{}.{}", file.package(), service.name());
            for method in &service.method {
                self.symbols.insert(format!("{full}.{}", method.name()), name.clone());
            }
            self.symbols.insert(full, name.clone());
        }
        self.files.insert(name, File { encoded, imports: file.dependency.clone() });
    }

    fn add_message(&mut self, file: &str, scope: &str, message: &DescriptorProto) {
        let full = format!("{scope}.{}", message.name());
        for nested in &message.nested_type {
            self.add_message(file, &full, nested);
        }
        for kind in &message.enum_type {
            self.symbols.insert(format!("{full}.{}", kind.name()), file.to_owned());
        }
        self.symbols.insert(full, file.to_owned());
    }

    fn answer(&self, request: v1::ServerReflectionRequest) -> v1::ServerReflectionResponse {
        let response = match &request.message_request {
            Some(MessageRequest::FileByFilename(name)) => self.file(name),
            Some(MessageRequest::FileContainingSymbol(symbol)) => match self.symbols.get(symbol) {
                Some(name) => self.file(name),
                None => not_found(format!("there is no symbol {symbol:?}")),
            },
            Some(MessageRequest::FileContainingExtension(extension)) => {
                not_found(format!("there are no extensions of {:?}", extension.containing_type))
            }
            Some(MessageRequest::AllExtensionNumbersOfType(name)) => self.no_extensions(name),
            Some(MessageRequest::ListServices(_)) => self.list(),
            None => error(Code::InvalidArgument, "a request that names nothing".to_owned()),
        };
        v1::ServerReflectionResponse {
            valid_host: request.host.clone(),
            original_request: Some(request),
            message_response: Some(response),
        }
    }

    fn file(&self, name: &str) -> MessageResponse {
        let mut wanted = vec![name];
        let mut encoded = Vec::new();
        let mut at = 0;
        while let Some(name) = wanted.get(at) {
            let Some(file) = self.files.get(*name) else {
                return not_found(format!("there is no file {name:?}"));
            };
            encoded.push(file.encoded.clone());
            let imports = file.imports.iter().map(String::as_str);
            let news: Vec<_> = imports.filter(|import| !wanted.contains(import)).collect();
            wanted.extend(news);
            at += 1;
        }
        MessageResponse::FileDescriptorResponse(v1::FileDescriptorResponse { file_descriptor_proto: encoded })
    }

    fn no_extensions(&self, name: &str) -> MessageResponse {
        if !self.symbols.contains_key(name) {
            return not_found(format!("there is no type {name:?}"));
        }
        let response =
            v1::ExtensionNumberResponse { base_type_name: name.to_owned(), extension_number: vec![] };
        MessageResponse::AllExtensionNumbersResponse(response)
    }

    fn list(&self) -> MessageResponse {
        let names = SERVICES.into_iter().filter(|name| self.services.has(name));
        let service = names.map(|name| v1::ServiceResponse { name: name.to_owned() }).collect();
        MessageResponse::ListServicesResponse(v1::ListServiceResponse { service })
    }
}

fn not_found(text: String) -> MessageResponse {
    error(Code::NotFound, text)
}

fn error(code: Code, error_message: String) -> MessageResponse {
    MessageResponse::ErrorResponse(v1::ErrorResponse { error_code: code as i32, error_message })
}

/// `ServerReflectionInfo`: one answer for each request, in order.
pub(in crate::edge) async fn serve<E: Env, S: Store>(
    edge: &Edge<E, S>,
    mut messages: Messages,
    reply: Reply,
    deadline: Option<Instant>,
) {
    let Ok(mut answers) = reply.start(edge, deadline) else { return };
    let outcome = loop {
        // A stream that asks nothing for so long is at its end.
        let due = deadline.unwrap_or_else(|| edge.env().now() + edge.limits().deadline_default);
        match guard(edge.env(), Some(due), |context| answers.poll_gone(context), messages.next()).await {
            Guarded::Done(Ok(Some(message))) => match answer_one(edge, message, &mut answers).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(status) => break Err(status),
            },
            Guarded::Done(Ok(None)) => break Ok(()),
            Guarded::Done(Err(ReadError::Status(status))) => break Err(status),
            Guarded::Late => break Err(Status::deadline_exceeded()),
            Guarded::Done(Err(ReadError::Gone)) | Guarded::Gone => return,
        }
    };
    answers.finish(outcome);
}

/// Answers one request; false where the client is gone.
async fn answer_one<E: Env, S: Store>(
    edge: &Edge<E, S>,
    message: crate::edge::frame::Received,
    answers: &mut Answers<E>,
) -> Result<bool, Status> {
    let (request, _held) = message.decode()?;
    let frame = encode(edge, &edge.inner.reflection.answer(request))?;
    match answers.send(frame).await {
        Ok(()) => Ok(true),
        Err(Unsent::Late(status)) => Err(status),
        Err(Unsent::Gone) => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(services: Services, request: MessageRequest) -> MessageResponse {
        let request = v1::ServerReflectionRequest { host: String::new(), message_request: Some(request) };
        Reflection::new(services).answer(request).message_response.expect("every request is answered")
    }

    #[test]
    fn services_and_files() {
        let MessageResponse::ListServicesResponse(list) =
            ask(Services::HealthAlone, MessageRequest::ListServices(String::new()))
        else {
            panic!("a list is answered with a list");
        };
        assert_eq!(list.service.len(), 3);
        for symbol in ["distribkv.v1.KV", "distribkv.v1.KV.Get", "distribkv.v1.Condition.Comparison"] {
            let answer = ask(Services::All, MessageRequest::FileContainingSymbol(symbol.to_owned()));
            let MessageResponse::FileDescriptorResponse(files) = answer else {
                panic!("{symbol}: {answer:?}")
            };
            let file = FileDescriptorProto::decode(files.file_descriptor_proto[0].clone());
            assert_eq!(file.expect("it is a file").name(), "distribkv/v1/kv.proto");
        }
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        let unknown = [
            MessageRequest::FileByFilename("x.proto".to_owned()),
            MessageRequest::FileContainingSymbol("distribkv.v1.Nothing".to_owned()),
            MessageRequest::AllExtensionNumbersOfType("distribkv.v1.Nothing".to_owned()),
            MessageRequest::FileContainingExtension(v1::ExtensionRequest::default()),
        ];
        for request in unknown {
            let answer = ask(Services::All, request);
            assert!(
                matches!(&answer, MessageResponse::ErrorResponse(error) if error.error_code == 5),
                "{answer:?}"
            );
        }
        let known = MessageRequest::AllExtensionNumbersOfType("distribkv.v1.KeyValue".to_owned());
        assert!(matches!(ask(Services::All, known), MessageResponse::AllExtensionNumbersResponse(_)));
    }
}
