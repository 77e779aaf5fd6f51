//! What fuzzing drives here: a broker's answers.

use bytes::Bytes;
use kafka_protocol::messages::{self, ApiKey};

use super::shapes::{self, SHAPES};
use super::{fetch, handshake, produce, rpc};

/// Arbitrary bytes as an answer of the API that the first byte chooses, in the version that the second does. Panics where an answer
/// of the right shape is one that the kafka-protocol crate cannot read.
pub fn fuzz_answer(data: &[u8]) {
    let [api, version, body @ ..] = data else { return };
    crate::sasl::fuzz_answer(body);
    let _ = handshake::read_versions(i16::from(version % 4), body);
    let body = Bytes::copy_from_slice(body);
    let within = |(low, high): (i16, i16)| low + i16::from(*version) % (high - low + 1);
    match usize::from(*api) % (SHAPES.len() + 2) {
        at if at < SHAPES.len() => {
            let shape = &SHAPES[at];
            decode(shape.api, within(shape.versions), &body);
        }
        at if at == SHAPES.len() => fetch::fuzz(within(shapes::FETCH), &body),
        _ => produce::fuzz(within(shapes::PRODUCE), &body),
    }
}

macro_rules! decode {
    ($api:ident, $version:ident, $body:ident: $($name:ident $request:ident),* $(,)?) => {
        match $api {
            $(ApiKey::$name => drop(rpc::decode::<messages::$request>($version, $body.clone())),)*
            other => unreachable!("{other:?} has a shape and no request"),
        }
    };
}

fn decode(api: ApiKey, version: i16, body: &Bytes) {
    decode!(api, version, body:
        ListOffsets ListOffsetsRequest, Metadata MetadataRequest, OffsetCommit OffsetCommitRequest,
        OffsetFetch OffsetFetchRequest, FindCoordinator FindCoordinatorRequest, ListGroups ListGroupsRequest,
        SaslHandshake SaslHandshakeRequest, CreateTopics CreateTopicsRequest, DeleteTopics DeleteTopicsRequest,
        InitProducerId InitProducerIdRequest, DescribeConfigs DescribeConfigsRequest,
        SaslAuthenticate SaslAuthenticateRequest, CreatePartitions CreatePartitionsRequest,
        IncrementalAlterConfigs IncrementalAlterConfigsRequest, DescribeProducers DescribeProducersRequest,
        DescribeAcls DescribeAclsRequest, CreateAcls CreateAclsRequest, DeleteAcls DeleteAclsRequest,
    );
}
