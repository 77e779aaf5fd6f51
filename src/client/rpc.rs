//! Which APIs can be called, and their frames.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use kafka_protocol::messages::{self, ApiKey};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion};

use super::primitives::Reader;
use super::shapes;

/// A request that [`super::Connection::call`] can send: those whose answers have a shape to be checked against.
pub trait Rpc: Encodable + HeaderVersion + Send + Sync + 'static {
    /// Which API.
    const API: ApiKey;
    /// The answer.
    type Response: Decodable + HeaderVersion + Send + 'static;
}

macro_rules! rpc {
    ($($api:ident: $request:ident -> $response:ident),* $(,)?) => {$(
        impl Rpc for messages::$request {
            const API: ApiKey = ApiKey::$api;
            type Response = messages::$response;
        }
    )*};
}

rpc! {
    ListOffsets: ListOffsetsRequest -> ListOffsetsResponse,
    Metadata: MetadataRequest -> MetadataResponse,
    OffsetCommit: OffsetCommitRequest -> OffsetCommitResponse,
    OffsetFetch: OffsetFetchRequest -> OffsetFetchResponse,
    FindCoordinator: FindCoordinatorRequest -> FindCoordinatorResponse,
    ListGroups: ListGroupsRequest -> ListGroupsResponse,
    SaslHandshake: SaslHandshakeRequest -> SaslHandshakeResponse,
    CreateTopics: CreateTopicsRequest -> CreateTopicsResponse,
    DeleteTopics: DeleteTopicsRequest -> DeleteTopicsResponse,
    InitProducerId: InitProducerIdRequest -> InitProducerIdResponse,
    DescribeConfigs: DescribeConfigsRequest -> DescribeConfigsResponse,
    SaslAuthenticate: SaslAuthenticateRequest -> SaslAuthenticateResponse,
    CreatePartitions: CreatePartitionsRequest -> CreatePartitionsResponse,
    IncrementalAlterConfigs: IncrementalAlterConfigsRequest -> IncrementalAlterConfigsResponse,
    DescribeProducers: DescribeProducersRequest -> DescribeProducersResponse,
    DescribeAcls: DescribeAclsRequest -> DescribeAclsResponse,
    CreateAcls: CreateAclsRequest -> CreateAclsResponse,
    DeleteAcls: DeleteAclsRequest -> DeleteAclsResponse,
}

/// Builds one request's frame: length, header, and what `body` writes. `body` answers with the number of bytes that follow the
/// frame's first chunk in chunks of their own.
pub(super) fn frame<F>(
    api: ApiKey,
    version: i16,
    flexible: bool,
    correlation: i32,
    client_id: &str,
    body: F,
) -> anyhow::Result<BytesMut>
where
    F: FnOnce(&mut BytesMut) -> anyhow::Result<usize>,
{
    let mut out = BytesMut::with_capacity(256);
    out.put_i32(0);
    out.put_i16(api as i16);
    out.put_i16(version);
    out.put_i32(correlation);
    out.put_i16(i16::try_from(client_id.len())?);
    out.put_slice(client_id.as_bytes());
    if flexible {
        out.put_u8(0);
    }
    let follows = body(&mut out)?;
    let length = i32::try_from(out.len() - 4 + follows)?;
    out[..4].copy_from_slice(&length.to_be_bytes());
    Ok(out)
}

/// The frame of a request of the kafka-protocol crate.
pub(super) fn encode<R: Rpc>(request: &R, version: i16, correlation: i32, client_id: &str) -> anyhow::Result<Bytes> {
    let flexible = R::header_version(version) >= 2;
    let frame =
        frame(R::API, version, flexible, correlation, client_id, |out| request.encode(out, version).map(|()| 0))?;
    Ok(frame.freeze())
}

/// Checks an answer (after its correlation id) against its shape and decodes it; also what it says of throttling, in ms.
pub(super) fn decode<R: Rpc>(version: i16, mut answer: Bytes) -> Result<(R::Response, i32), String> {
    let shape = shapes::shape(R::API).ok_or_else(|| format!("{:?} has no shape", R::API))?;
    if R::Response::header_version(version) >= 1 {
        let mut header = Reader::new(&answer);
        header.skip_tags().map_err(|error| error.to_string())?;
        answer.advance(header.at());
    }
    shape.check(version, &answer).map_err(|error| format!("{:?} v{version}: {error}", R::API))?;
    let throttle = match shape.throttle {
        Some(since) if version >= since => Reader::new(&answer).i32().map_err(|error| error.to_string())?,
        _ => 0,
    };
    let response =
        R::Response::decode(&mut answer, version).map_err(|error| format!("{:?} v{version}: {error}", R::API))?;
    Ok((response, throttle))
}
